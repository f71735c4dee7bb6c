"""A broker's settings, of which two things matter here: does SEND_OK mean durable, and how large may a message be."""

from __future__ import annotations

import msgspec


class BrokerSettings(msgspec.Struct, frozen=True):
    """``largest`` and ``keeps_hours`` are 0 where the broker doesn't say. ``weakness`` says why SEND_OK is not enough; empty where it is."""

    flush: str = ""
    role: str = ""
    largest: int = 0
    sql: bool = False
    keeps_hours: int = 0
    weakness: str = ""


def parse_settings(body: bytes) -> BrokerSettings:
    """Lines of NAME=VALUE."""
    pairs = (line.partition("=") for line in body.decode(errors="replace").splitlines())
    told = {name.strip(): value.strip() for name, separator, value in pairs if separator}
    flush, role = told.get("flushDiskType", ""), told.get("brokerRole", "")
    largest, sql = _number(told.get("maxMessageSize", "")), told.get("enablePropertyFilter") == "true"
    return BrokerSettings(flush, role, largest, sql, _number(told.get("fileReservedTime", "")), _weakness(flush, role, told))


def _weakness(flush: str, role: str, told: dict[str, str]) -> str:
    """A disk that is synced is enough, and so is a replica that is waited for.

    A SYNC_MASTER of 5.x waits for none as long as inSyncReplicas is 1, its default; brokers of 4.x don't know that setting.
    """
    if flush == "SYNC_FLUSH":
        return ""
    if role != "SYNC_MASTER":
        return f"flushDiskType is {flush or 'not told'} and brokerRole {role or 'not told'}"
    if "inSyncReplicas" not in told:
        return ""
    controlled = told.get("enableControllerMode") == "true" and told.get("allAckInSyncStateSet") == "true"
    least = "minInSyncReplicas" if controlled or told.get("enableAutoInSyncReplicas") == "true" else "inSyncReplicas"
    if _number(told.get(least, "")) >= 2:
        return ""
    return f"flushDiskType is {flush or 'not told'} and {least} {told.get(least, 'not told')}, so that no replica is waited for"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
