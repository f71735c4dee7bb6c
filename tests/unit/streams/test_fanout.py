"""Who gets which copy: the highest QoS, all identifiers, no local, one member a group, and permission for each reader."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import hot
from schemas.identities import Principal
from schemas.positions import At
from schemas.records import Flag, Kind, Record
from schemas.sessions import Subscription
from streams.fanout import Delivery, Plan, Run, Variant, derive_plan, fan_out, make_run


class Receiver:
    """A target that keeps what it is given."""

    def __init__(self, client: str, available: int = 2) -> None:
        self.client = client
        self.principal = Principal(client)
        self.available = available
        self.got: list[Delivery] = []

    def deliver(self, run: Run) -> None:
        self.got += run.deliveries

    def queue_length(self) -> int:
        return 0

    def availability(self) -> int:
        return self.available


def record(client: str = "p", *, qos: int = 1, flags: int = 0, payload: bytes = b"x") -> Record:
    return Record(int(Kind.PUBLISH), bytes(16), 1, client, "t", payload, qos=qos, flags=flags)


def anyone(principal: Principal, topic: str) -> bool:
    return True


def give(matches: list[tuple[Receiver, Subscription]], *records: Record, may_read: Callable[[Principal, str], bool] = anyone) -> Plan:
    plan = derive_plan("t", matches, may_read)
    fan_out(plan, records, [At(0, 5, index) for index in range(len(records))])
    return plan


def test_overlapping_subscriptions_are_one_copy() -> None:
    """[MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]"""
    s = Receiver("s")
    give([(s, Subscription("t", 0, identifier=1)), (s, Subscription("+", 2, identifier=2)), (s, Subscription("#", 1))], record(qos=2))
    assert [(d.qos, d.identifiers, d.at) for d in s.got] == [(2, (1, 2), At(0, 5, 0))]


def test_the_lower_qos_holds() -> None:
    """[MQTT-3.8.4-8]"""
    s = Receiver("s")
    give([(s, Subscription("t", 1))], record(qos=2), record(qos=2))
    give([(s, Subscription("t", 2))], record(qos=0))
    assert [d.qos for d in s.got] == [1, 1, 0]


def test_retain_as_published() -> None:
    """[MQTT-3.3.1-12] [MQTT-3.3.1-13]"""
    a, b = Receiver("a"), Receiver("b")
    matches = [(a, Subscription("t", 1, retain_as_published=True)), (b, Subscription("t", 1))]
    give(matches, record(flags=int(Flag.RETAIN)))
    give(matches, record())
    assert [d.retain for d in a.got] == [True, False]
    assert [d.retain for d in b.got] == [False, False]


def test_no_local_leaves_other_subscriptions_of_the_client() -> None:
    """[MQTT-3.8.3-3]"""
    s = Receiver("s")
    give([(s, Subscription("t", 2, no_local=True, identifier=1)), (s, Subscription("#", 0, identifier=2))], record("s"), record("p"))
    assert [(d.qos, d.identifiers) for d in s.got] == [(0, (2,)), (1, (1, 2))]
    t = Receiver("t")
    give([(t, Subscription("t", 2, no_local=True))], record("t"))
    assert t.got == []


def test_who_may_not_read_gets_nothing_by_no_way() -> None:
    s, t = Receiver("s"), Receiver("t")
    matches = [(s, Subscription("t", 1)), (s, Subscription("t", 1, no_local=True)), (s, Subscription("$share/g/t", 1)), (t, Subscription("t", 1))]
    give(matches, record(), may_read=lambda principal, topic: principal.name != "s")
    assert (len(s.got), len(t.got)) == (0, 1)


def test_one_run_serves_all_receivers_of_a_kind() -> None:
    """Encoded once: a thousand receivers share the deliveries."""
    receivers = [Receiver(str(number)) for number in range(5)]
    plan = give([(receiver, Subscription("t", 1)) for receiver in receivers], record(), record())
    assert len(plan.variants) == 1
    assert all(receiver.got[0] is receivers[0].got[0] for receiver in receivers)


def test_one_member_of_each_group_gets_a_record() -> None:
    """[MQTT-4.8.2-3]; the same publisher's go to the same member while that one can take them."""
    members = [Receiver(name) for name in "abc"]
    plain = Receiver("a")
    matches = [(m, Subscription(name, qos)) for name, qos in (("$share/g/t", 1), ("$share/h/t", 2)) for m in members]
    matches.append((plain, Subscription("t", 1)))
    give(matches, *[record("p", qos=2) for _ in range(10)])
    assert sum(len(m.got) for m in members) == 20
    assert len(plain.got) == 10
    groups = {(m.client, d.group) for m in members for d in m.got}
    assert len(groups) == 2
    assert all(d.group == "" for d in plain.got)
    assert {(d.group, d.qos) for m in members for d in m.got} == {("$share/g/t", 1), ("$share/h/t", 2)}


def test_a_group_prefers_a_free_window_then_online_then_offline() -> None:
    members = [Receiver(name, available) for name, available in (("off", 0), ("busy", 1), ("free", 2))]
    matches = [(m, Subscription("$share/g/t", 1)) for m in members]
    for expected in ("free", "busy", "off"):
        give(matches, record())
        chosen = next(m for m in members if m.got)
        assert chosen.client == expected
        chosen.got.clear()
        chosen.available = -1


@given(
    topic=st.text(st.characters(exclude_characters="+#\x00", exclude_categories=["Cs"]), min_size=1, max_size=30),
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=4),
    identifiers=st.lists(st.integers(1, 268_435_455), max_size=4),
    expiry=st.booleans(),
    version=st.sampled_from((4, 5)),
)
def test_no_packet_is_larger_than_the_run_says(topic: str, sizes: list[int], identifiers: list[int], expiry: bool, version: int) -> None:
    """What a client's maximum packet size is first compared with [MQTT-3.1.2-24]."""
    records = [
        Record(int(Kind.PUBLISH), bytes(16), 1, "p", topic, bytes(size), qos=1, properties=b"\x01\x01", expires_at=10_000 if expiry else 0)
        for size in sizes
    ]
    run = make_run(topic, {}, Variant(1, retain_as_published=False, identifiers=tuple(identifiers)), records, [At(0, 0, 0)] * len(records))
    for delivery in run.deliveries:
        assert len(hot.single(delivery, topic, 65_535, version=version, dup=True, now=5, alias=0)) <= run.largest
