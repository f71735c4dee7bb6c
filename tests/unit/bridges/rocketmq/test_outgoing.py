"""What may leave, what may not, and where it goes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.rocketmq import placing as placings
from bridges.rocketmq.incoming import incoming
from bridges.rocketmq.messages import StoredMessage, decode_batch
from bridges.rocketmq.outgoing import encode, sharding_key, topic_fault
from bridges.rocketmq.placing import BATCH_BYTES, BATCH_MESSAGES, Placing, batches
from bridges.rocketmq.routes import Queue
from streams.backend import Incoming, Outgoing
from tests.unit.bridges.rocketmq.conftest import message

ID = f"{1:032X}"


def encoded(outgoing: Outgoing) -> tuple[bytes, dict[str, str]]:
    data = encode(outgoing)
    assert isinstance(data, bytes)
    ((body, properties),) = decode_batch(data)
    return body, dict(properties)


def test_a_message_names_itself_by_both_of_its_ids_and_its_tag_and_lane() -> None:
    body, properties = encoded(message(b"\x00\xff", properties=(("clientId", "c"),), tag="t", lane="lane", key="not for RocketMQ"))
    assert body == b"\x00\xff"
    assert properties == {"UNIQ_KEY": ID, "KEYS": ID, "TAGS": "t", "__SHARDINGKEY": "lane", "clientId": "c"}
    assert encoded(message())[1] == {"UNIQ_KEY": ID, "KEYS": ID}


def test_no_body_is_a_byte_and_a_mark() -> None:
    body, properties = encoded(message(b""))
    assert (len(body), properties["mqttEmptyBody"]) == (1, "true")


@pytest.mark.parametrize(
    ("lane", "key"),
    [
        ("GID@@@1", "GID@@@1"),
        ("x" * 63, "x" * 63),
        ("x" * 64, "#7ce100971f64e7001e8fe5a51973ecdf"),
        ("ä" * 32, "#"),
        ("", "#e3b0c44298fc1c149afbf4c8996fb924"),
        (" ", "#"),
        ("a\x01b", "#"),
        ("a\nb", "#"),
        ("\ud800", "#"),
        ("x" * 256, "#"),
    ],
)
def test_sharding_keys_stay_below_64_bytes(lane: str, key: str) -> None:
    made = sharding_key(lane)
    assert made.startswith(key)
    assert made == key or len(made) == 33
    assert len(made.encode()) < 64
    assert isinstance(encode(message(lane=lane)), bytes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"properties": (("a", "b"), ("n\x01", "v"))}, r"`n\?` has control characters"),
        ({"properties": (("name", "v\x02"),)}, "`name` has control characters"),
        ({"properties": (("name", "v\x00"),)}, "`name` has control characters"),
        ({"properties": (("name", "v\x7f"),)}, "`name` has control characters"),
        ({"properties": (("name", "v\n"),)}, "`name` has control characters"),
        ({"tag": "a\x01"}, "the tag has control characters"),
        ({"id": "\x02"}, "the id has control characters"),
        ({"properties": (("WAIT", "false"),)}, "`WAIT` is RocketMQ's own"),
        ({"properties": (("DELAY", "3"),)}, "`DELAY` is RocketMQ's own"),
        ({"properties": (("mqttEmptyBody", "true"),)}, "`mqttEmptyBody` is RocketMQ's own"),
        ({"properties": (("", "v"),)}, "one has no name"),
        ({"properties": (("n", "\ud800"),)}, "no valid text"),
        ({"properties": (("n", "v" * 32_703),)}, "over RocketMQ's limit of 32703"),
        ({"body": bytes(15 * 1024 * 1024)}, "body: a message of"),
    ],
)
def test_what_may_not_leave_is_named(options: dict[str, object], words: str) -> None:
    fault = encode(message(**options))  # type: ignore[arg-type]
    assert isinstance(fault, str)
    assert re.search(words, fault)


@pytest.mark.parametrize(
    ("topic", "fine"), [("a-b_c|d%E9", True), ("x" * 127, True), ("x" * 128, False), ("", False), ("a.b", False), ("ä", False), ("a\n", False)]
)
def test_names_of_topics(topic: str, fine: bool) -> None:
    assert (topic_fault(topic) == "") is fine


texts = st.text(max_size=10)


@given(st.binary(max_size=20), st.lists(st.tuples(texts, texts), max_size=4), texts, st.none() | texts)
def test_what_leaves_comes_back_and_nothing_else_leaves(body: bytes, properties: list[tuple[str, str]], tag: str, lane: str | None) -> None:
    sent = message(body, properties=tuple(properties), tag=tag, lane=lane)
    data = encode(sent)
    if isinstance(data, str):
        assert data
        return
    ((stored, kept),) = decode_batch(data)
    got = incoming(StoredMessage("ns%T", 3, 9, stored, kept, 1000), "T", "a:3")
    assert got == Incoming("T", "a:3", 9, body, sent.properties, sent.id, 1000, sent.id, tag)


def test_a_mark_of_emptiness_on_a_body_that_is_none_is_passed_over() -> None:
    for mark, body in (("true", b"ab"), ("false", b"a")):
        assert incoming(StoredMessage("T", 0, 0, body, (("mqttEmptyBody", mark),)), "T", "q").body == body


def queues(*names: str, count: int = 4) -> tuple[Queue, ...]:
    return tuple(Queue(name, number) for name in names for number in range(count))


def placed(*names: str) -> dict[str, Queue]:
    placing = Placing()
    placing.use(queues(*names))
    return {lane: placing.of_lane(lane) for lane in (f"client {n}" for n in range(400))}


def test_lanes_spread_and_stay_and_only_those_of_a_lost_broker_move() -> None:
    both, again, one = placed("a", "b"), placed("a", "b"), placed("a")
    assert both == again
    counts = [list(both.values()).count(queue) for queue in queues("a", "b")]
    assert min(counts) > 25
    assert all(one[lane] == queue for lane, queue in both.items() if queue.broker == "a")


def test_places_are_the_same_on_every_node_and_in_every_version() -> None:
    """Written down: another hash would break the order of lanes over an upgrade."""
    lanes = placed("broker-a")
    assert [lanes[f"client {n}"].number for n in range(12)] == PLACES


PLACES = [2, 1, 0, 0, 2, 1, 2, 3, 3, 1, 2, 2]


def test_remembered_lanes_are_bounded_and_forgotten_with_their_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placings, "LANES_REMEMBERED", 10)
    placing = Placing()
    placing.use(queues("a"))
    before = [placing.of_lane(str(n)) for n in range(100)]
    assert len(placing._lanes) <= 10
    assert [placing.of_lane(str(n)) for n in range(100)] == before
    placing.use(queues("b"))
    assert {placing.of_lane(str(n)).broker for n in range(100)} == {"b"}


def test_turns_begin_everywhere() -> None:
    placing = Placing()
    placing.use(queues("a"))
    turns = [placing.turns() for _ in range(8)]
    assert [turn[0].number for turn in turns] == [1, 2, 3, 0, 1, 2, 3, 0]
    assert all(sorted(turn) == sorted(queues("a")) for turn in turns)


def test_batches_keep_their_limits_and_their_order() -> None:
    items = [(n, bytes(10)) for n in range(600)]
    assert [len(batch) for batch in batches(items)] == [BATCH_MESSAGES, BATCH_MESSAGES, 88]
    assert [item for batch in batches(items) for item in batch] == items
    large = [(0, bytes(BATCH_BYTES - 5)), (1, bytes(5)), (2, b"x"), (3, bytes(BATCH_BYTES + 1)), (4, b"y")]
    assert [[index for index, _ in batch] for batch in batches(large)] == [[0, 1], [2], [3], [4]]
    assert list(batches([])) == []
