"""The control topics that a client publishes to: `$SYS/getOfflineMsg`, `$SYS/enableOrderMsg`, `$SYS/uploadToken`. Answered here, never logged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from schemas.reasons import ReasonCode
from streams.control import TokenBucket, parse_enable_order, parse_get_offline, take

if TYPE_CHECKING:
    from gateway.connection import Connection


def _get_offline(connection: Connection, payload: bytes) -> ReasonCode:
    """Legacy pull of stored messages, so many times a second."""
    wanted = parse_get_offline(payload)
    if isinstance(wanted, str):
        return ReasonCode.PAYLOAD_FORMAT_INVALID
    session = connection.session
    assert session is not None  # noqa: S101 - connected
    session.pulls, granted = take(session.pulls or TokenBucket(), connection.node.monotonic())
    if not granted:
        return ReasonCode.QUOTA_EXCEEDED
    connection.node.backlog.pull(session, wanted)
    return ReasonCode.SUCCESS


def _enable_order(connection: Connection, payload: bytes) -> ReasonCode:
    """From now on records of this client are marked as ordered, for rules that keep them in one queue."""
    if isinstance(parse_enable_order(payload), str):
        return ReasonCode.PAYLOAD_FORMAT_INVALID
    session = connection.session
    assert session is not None  # noqa: S101
    session.ordered = True
    return ReasonCode.SUCCESS


def _upload_token(connection: Connection, payload: bytes) -> ReasonCode:
    return connection.node.token_watch.upload(connection, payload)


CONTROLS: dict[str, Callable[[Connection, bytes], ReasonCode]] = {
    "$SYS/getOfflineMsg": _get_offline,
    "$SYS/enableOrderMsg": _enable_order,
    "$SYS/uploadToken": _upload_token,
}
