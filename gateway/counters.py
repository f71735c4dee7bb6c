"""What is counted: plain numbers on the hot path, read by the metrics page (gateway/api) when it is asked for."""

from __future__ import annotations

from collections import Counter


class Counters:
    """``dropped``, ``refused`` and ``throttled`` count by reason: a delivery not made, a request not granted, a pause in reading."""

    __slots__ = (
        "acknowledged",
        "bytes_in",
        "bytes_out",
        "connects",
        "delivered",
        "disconnects",
        "dropped",
        "offline_stored",
        "published",
        "redelivered",
        "refused",
        "retained_set",
        "throttled",
        "trace_left_out",
        "trace_lost",
        "wills",
    )

    def __init__(self) -> None:
        self.published = 0
        self.acknowledged = 0
        self.delivered = 0
        self.redelivered = 0
        self.offline_stored = 0
        self.retained_set = 0
        self.wills = 0
        self.trace_left_out = 0
        self.trace_lost = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.connects = 0
        self.disconnects: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
