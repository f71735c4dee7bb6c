"""A shard's router: each node is told of its own records once, and the parts that it is told of follow on each other without a hole."""

from __future__ import annotations

import random

from schemas.positions import At
from schemas.records import Flag, Kind, Record
from streams.cluster import NodeState, Route, Routes
from streams.log import Batch
from streams.routing.messages import Routed, Sent
from streams.routing.node_routes import NodeRoutes
from streams.routing.router import ShardRouter

GROUP = "$share/g/a"


def record(topic: str = "a", **fields: int) -> Record:
    return Record(fields.pop("kind", int(Kind.PUBLISH)), b"", 0, "p", topic, **fields)


def index(*routes: tuple[int, str], alive: tuple[int, ...] = (1, 2, 3)) -> NodeRoutes:
    found = NodeRoutes()
    found.see([NodeState(epoch, f"n{epoch}", True) for epoch in alive])
    found.fold(Routes(tuple(Route(epoch, each, 1, version) for version, (epoch, each) in enumerate(routes, 1))))
    return found


def batch(start: int, *topics: str) -> Batch:
    return Batch(At(0, start, 0), [record(topic) for topic in topics], At(0, start + 1, 0))


def at(offset: int, place: int = 0) -> At:
    return At(0, offset, place)


def test_each_node_is_told_of_its_own_records_in_one_message_a_batch() -> None:
    router = ShardRouter(0, 5, at(3), index((1, "a"), (2, "#")))
    told = router.route(batch(3, "a", "b", "a"), 0)
    first, second, third = (Sent(at(3, place), record(topic)) for place, topic in enumerate("aba"))
    assert told == [
        Routed(1, 0, 5, at(3), at(3), at(4), 1, (first, third)),
        Routed(2, 0, 5, at(3), at(3), at(4), 2, (first, second, third)),
    ]
    assert (router.position, router.safe()) == (at(4), at(3)), "the third node doesn't know yet"
    assert router.marks() == [Routed(3, 0, 5, at(3), at(3), at(4), 0)]
    assert router.safe() == at(4)
    assert router.marks() == []
    assert [message.start for message in router.marks(every=True)] == [at(4)] * 3


def test_old_routes_count_up_to_where_new_ones_were_folded() -> None:
    routes = index((1, "a"))
    router = ShardRouter(0, 5, at(0), routes)
    assert router.begin() == [Routed(epoch, 0, 5, at(0), at(0), at(0), version) for epoch, version in ((1, 1), (2, 0), (3, 0))]
    router.route(batch(0, "b"), 0)
    assert router.changed(routes.fold(Routes((Route(1, "b", 1, 7),)))) == [
        Routed(1, 0, 5, at(0), at(0), at(1), 1),
        Routed(1, 0, 5, at(0), at(1), at(1), 7),
    ]
    assert [(message.version, message.start) for message in router.route(batch(1, "b"), 0)] == [(7, at(1))]


def test_a_node_that_comes_is_told_from_here_on_and_one_that_went_no_more() -> None:
    routes = index((1, "a"))
    router = ShardRouter(0, 5, at(0), routes)
    router.route(batch(0, "a"), 0)
    new = routes.see([NodeState(epoch, f"n{epoch}", True) for epoch in (1, 2, 4)])
    assert router.changed(new) == [Routed(4, 0, 5, at(0), at(1), at(1), 0)]
    routes.fold(Routes(gone=(3,)))
    assert {message.epoch for message in router.marks(every=True)} == {1, 2, 4}


def test_whatever_happens_the_parts_told_to_a_node_follow_on_each_other_and_have_what_its_routes_match() -> None:
    rng = random.Random(4)
    for _ in range(50):
        routes = index((1, "a"))
        router, told, version, held, expected = ShardRouter(0, 1, at(0), routes), [], 1, {"a"}, []
        told += router.begin()
        for offset in range(30):
            topics = rng.choices("abc", k=2)
            told += router.route(batch(offset, *topics), 0)
            expected += [(at(offset, place), topic) for place, topic in enumerate(topics) if topic in held]
            if rng.random() < 0.4:
                topic, version = rng.choice("abc"), version + 1
                held ^= {topic}
                told += router.changed(routes.fold(Routes((Route(1, topic, int(topic in held), version),))))
            if rng.random() < 0.2:
                told += router.marks()
        mine = [message for message in told + router.marks() if message.epoch == 1]
        assert [message.start for message in mine[1:]] == [message.upto for message in mine[:-1]]
        assert mine[-1].upto == router.position
        assert [(sent.at, sent.record.topic) for message in mine for sent in message.sent] == expected


def test_a_node_has_a_record_once_for_its_subscribers_and_as_the_one_that_was_chosen() -> None:
    routes = index((1, "a"), (1, GROUP), (2, "a"), (2, "$share/h/a"))
    router = ShardRouter(0, 5, at(0), routes)
    told = {message.epoch: message.sent for message in router.route(batch(0, "a"), 0)}
    router.marks()
    assert told == {1: (Sent(at(0), record(), True, (GROUP,)),), 2: (Sent(at(0), record(), True, ("$share/h/a",)),)}
    assert router.safe() == at(0), "commands may be lost with their nodes"
    router.handing.confirm(router.handing.outstanding(), {1, 2}, 0)
    assert router.safe() == at(1)


def test_a_node_that_was_only_chosen_has_no_plain_copy() -> None:
    router = ShardRouter(0, 5, at(0), index((1, GROUP)))
    assert router.route(batch(0, "a"), 0)[0].sent == (Sent(at(0), record(), False, (GROUP,)),)


def test_a_record_for_members_of_dead_nodes_only_waits_for_a_member() -> None:
    routes = index((1, GROUP))
    routes.see([NodeState(1, "n1", False), NodeState(2, "n2", True)])
    router = ShardRouter(0, 5, at(0), routes)
    assert router.route(batch(0, "a"), 100) == []
    assert router.safe() == at(0)
    routes.fold(Routes((Route(2, GROUP, 1, 1),)))
    assert [handed.epoch for handed in router.handing.confirm((), {2}, 200)] == [2]


def test_releases_and_messages_to_one_device_go_another_way() -> None:
    router = ShardRouter(0, 5, at(0), index((1, "#"), (1, "$share/g/#")))
    records = [record(kind=int(Kind.RELEASE)), record("a/p2p/c", flags=int(Flag.P2P))]
    assert router.route(Batch(at(0), records, at(1)), 0) == []
    assert router.position == at(1)
