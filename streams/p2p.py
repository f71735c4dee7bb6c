"""Where a message to one named device goes (design: P2P). Pure; the topic's form is in schemas/topics.py."""

from __future__ import annotations

from enum import IntEnum


class Place(IntEnum):
    """SESSION: to the target's session, online or not. MAILBOX: kept for the client id. NOWHERE: dropped and counted."""

    SESSION = 0
    MAILBOX = 1
    NOWHERE = 2


def place(*, known: bool, online: bool, persistent_target: bool, keeps: bool, qos: int, strict: bool) -> Place:
    """``known``: the target has a session; ``keeps``: QoS 1 or 2 from a sender whose session is persistent.

    ``strict``: the sender's session alone decides whether a message waits (preset apsaramq).
    """
    if known and (online or (persistent_target and qos > 0 and (keeps or not strict))):
        return Place.SESSION
    return Place.MAILBOX if keeps else Place.NOWHERE
