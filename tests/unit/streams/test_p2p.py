"""Where a message to one named device goes: the whole table."""

from __future__ import annotations

from itertools import product

import pytest

from streams.p2p import Place, place

CASES = list(product((False, True), (False, True), (False, True), (False, True), (0, 1, 2), (False, True)))


@pytest.mark.parametrize(("known", "online", "persistent", "keeps", "qos", "strict"), CASES)
def test_place(known: bool, online: bool, persistent: bool, keeps: bool, qos: int, strict: bool) -> None:
    """Online always; offline where the target's session or (strict: only) the sender's keeps it; a mailbox for the rest that is kept."""
    if known and online or known and persistent and qos and (keeps or not strict):
        expected = Place.SESSION
    elif keeps:
        expected = Place.MAILBOX
    else:
        expected = Place.NOWHERE
    assert place(known=known, online=online, persistent_target=persistent, keeps=keeps, qos=qos, strict=strict) == expected
