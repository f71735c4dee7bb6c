"""The node's side: each record of its own once, whatever comes again, late, from an old router, or never."""

from __future__ import annotations

import random

from schemas.positions import At
from schemas.records import Kind, Record
from streams.routing.messages import Routed, Sent
from streams.routing.watermarks import Taken, Watermarks

RECORD = Record(int(Kind.PUBLISH), b"", 0, "p", "a")


def at(offset: int) -> At:
    return At(0, offset, 0)


def sent(offset: int, *groups: str) -> Sent:
    return Sent(at(offset), RECORD, not groups, groups)


def routed(start: int, upto: int, *records: Sent, version: int = 1, token: int = 1, began: int = 0) -> Routed:
    return Routed(9, 0, token, at(began), at(start), at(upto), version, records)


def marks(offset: int = 0) -> Watermarks:
    return Watermarks({0: at(offset)})


def test_what_follows_on_the_watermark_is_taken() -> None:
    found = marks(3)
    assert found.take(routed(3, 5, sent(3), sent(4))) == Taken(None, (sent(3), sent(4)), ())
    assert found.reached == {0: at(5)}


def test_what_lies_before_the_watermark_was_there_already() -> None:
    found = marks(0)
    message = routed(0, 5, sent(1), sent(4))
    found.take(message)
    assert found.take(message) == Taken(None, (), ())
    assert found.take(routed(3, 7, sent(4), sent(6))).plain == (sent(6),)
    assert found.take(routed(2, 3)).hole is None
    assert found.reached == {0: at(7)}


def test_a_hole_is_read_by_the_node_itself() -> None:
    found = marks(2)
    assert found.take(routed(5, 8, sent(6))) == Taken((at(2), at(5)), (sent(6),), ())
    assert found.reached == {0: at(8)}


def test_an_older_version_says_nothing() -> None:
    found = marks()
    found.take(routed(0, 2, version=5))
    assert found.take(routed(2, 6, sent(3), version=4)) == Taken(None, (), ())
    assert found.reached == {0: at(2)}
    assert found.take(routed(6, 7, sent(6), version=5)).hole == (at(2), at(6))


def test_a_wait_is_over_where_every_shard_is_routed_with_the_version() -> None:
    found = Watermarks({0: at(4), 1: At(1, 9, 0)})
    wait = found.wait(3)
    found.take(routed(4, 6, version=2))
    assert wait.places == {}
    found.take(routed(6, 8, version=4))
    assert (wait.places, wait.done) == ({0: at(6)}, False)
    found.take(Routed(9, 1, 1, At(1, 0, 0), At(1, 5, 0), At(1, 7, 0), 3))
    assert wait.places == {0: at(6), 1: At(1, 9, 0)}, "what was routed before with older routes lies before the watermark"
    assert wait.done
    assert found.wait(3).places == {0: at(8), 1: At(1, 9, 0)}, "from here on, since it is so already"


def test_the_first_place_counts() -> None:
    found = Watermarks({0: at(0), 1: At(1, 0, 0)})
    wait = found.wait(1)
    found.take(routed(0, 2))
    found.take(routed(2, 4))
    assert wait.places == {0: at(0)}


def test_a_wait_behind_a_hole_is_over_where_the_hole_ends() -> None:
    found = marks(2)
    wait = found.wait(1)
    found.take(routed(5, 8))
    assert wait.places == {0: at(5)}


def test_commands_come_once_a_router_whatever_their_version() -> None:
    found = marks()
    found.take(routed(0, 2, version=5))
    message = routed(2, 4, sent(3, "g"), version=4)
    assert found.take(message).commands == (sent(3, "g"),)
    assert found.take(message).commands == ()


def test_what_an_older_router_commands_is_void_and_a_new_one_decides_from_where_it_began() -> None:
    found = marks()
    found.take(routed(0, 9, sent(2, "g")))
    late = routed(9, 12, sent(10, "g"))
    assert found.take(routed(4, 9, sent(6, "g"), token=2, began=4)).commands == (sent(6, "g"),), "the older one said nothing of it to this node"
    assert found.take(late) == Taken(None, (), ())
    assert found.reached == {0: at(12)}, "but what it says of plain subscriptions is true"


def test_in_any_order_with_repeats_a_node_has_what_is_its_own_once_and_in_order() -> None:
    rng = random.Random(7)
    for _ in range(200):
        cuts = sorted({0, 20, *rng.choices(range(1, 20), k=4)})
        mine = {offset for offset in range(20) if rng.random() < 0.5}
        messages = [routed(a, b, *(sent(o) for o in range(a, b) if o in mine)) for a, b in zip(cuts, cuts[1:], strict=False)]
        coming = [message for message in rng.choices(messages, k=8) if rng.random() < 0.9] + messages[-1:]
        found, got = marks(), []
        for message in coming:
            taken = found.take(message)
            got += [offset for offset in range(taken.hole[0].offset, taken.hole[1].offset) if offset in mine] if taken.hole else []
            got += [each.at.offset for each in taken.plain]
        assert got == sorted(mine)
