"""Named connections to backends, as `[connections.NAME]` sections say. Secrets are sealed from sight: see ``Secret``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

ConnectionKind = Literal["kafka", "rocketmq"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]


class Secret:
    """A value that prints as stars; ``reveal`` is the one way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')" if self._value else "Secret('')"

    __str__ = __repr__


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``address``: Kafka's bootstrap servers, RocketMQ's name servers. An empty allow list allows nothing.

    TLS: ``ca`` alone verifies the brokers (the system's authorities where it is None), ``certificate`` and ``key`` are ours (mTLS).
    ``mechanism`` with ``user`` and ``password`` is Kafka's SASL (OAUTHBEARER: ``token_file`` is read anew for each connect);
    for RocketMQ ``user`` and ``password`` are the access key and secret of its ACL. ``durability``: "checked" refuses a broker whose
    setting doesn't keep what is acknowledged, "as configured" takes it as it is.
    """

    name: str
    kind: ConnectionKind
    address: tuple[str, ...]
    allow_outflow: tuple[str, ...] = ()
    allow_inflow: tuple[str, ...] = ()
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    mechanism: SaslMechanism | None = None
    user: str = ""
    password: Secret = Secret("")
    token_file: Path | None = None
    namespace: str = ""
    compression: Compression = "none"
    durability: Literal["checked", "as configured"] = "as configured"
