"""The control topics that a client publishes to: `$SYS/getOfflineMsg` and `$SYS/enableOrderMsg`. Answered here, never logged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from streams.control import parse_enable_order, parse_get_offline

if TYPE_CHECKING:
    from gateway.connection import Connection


def _get_offline(connection: Connection, payload: bytes, now: int) -> str:
    """Legacy pull of stored messages; the words of the error, empty for none."""
    wanted = parse_get_offline(payload)
    if isinstance(wanted, str):
        return wanted
    session = connection.session
    assert session is not None  # noqa: S101 - connected
    connection.node.backlog.pull(session, wanted, now)
    return ""


def _enable_order(connection: Connection, payload: bytes, now: int) -> str:
    """From now on records of this client are marked as ordered, for rules that keep them in one queue."""
    wanted = parse_enable_order(payload)
    if isinstance(wanted, str):
        return wanted
    session = connection.session
    assert session is not None  # noqa: S101
    session.ordered = True
    return ""


CONTROLS: dict[str, Callable[[Connection, bytes, int], str]] = {
    "$SYS/getOfflineMsg": _get_offline,
    "$SYS/enableOrderMsg": _enable_order,
}
