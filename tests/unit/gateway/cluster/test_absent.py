"""Whose a message to a device is: its node's, or the mailbox's."""

from __future__ import annotations

import pytest

from gateway.clock import RecordIds
from gateway.cluster.absent import CLOCKS_APART, Waiting, is_taken_care_of
from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.records import Record
from streams.cluster import Owner

NOW = 1_700_000_000_000
WAITING = Waiting("device", Record(0, b"", NOW, "sender"), At(0, 0, 0), 0.0)


def status(since: int, *, online: bool = True, epoch: int = 7) -> ClientStatus:
    return ClientStatus("device", online, RecordIds(1, epoch).next(since).hex(), "127.0.0.1:1", since)


@pytest.mark.parametrize(
    ("owners", "known", "taken"),
    [
        ({"device": Owner(1, 1, 9)}, None, True),
        ({}, None, False),
        ({}, status(NOW - 60_000, online=False), False),
        ({}, status(NOW - CLOCKS_APART - 1), True),
        ({}, status(NOW - CLOCKS_APART), False),
        ({}, status(NOW + 1), False),
        ({}, status(NOW - 60_000, epoch=8), False),
    ],
)
def test_a_message_is_its_node_s_where_the_device_was_there_for_sure(owners: dict[str, Owner], known: ClientStatus | None, taken: bool) -> None:
    assert is_taken_care_of(WAITING, owners, known, {7}) is taken
