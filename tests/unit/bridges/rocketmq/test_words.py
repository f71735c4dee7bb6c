"""What name servers and brokers say about themselves, and what is said to them: routes, settings, heartbeats, signatures."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.rocketmq import routes
from bridges.rocketmq.brokersettings import parse_settings
from bridges.rocketmq.errors import REMARK_LIMIT, Refused, RemotingError
from bridges.rocketmq.heartbeats import Consumer, Subscription, encode_check, encode_group, encode_heartbeat, java_hash
from bridges.rocketmq.routes import Cluster, Queue, Route, parse_cluster, parse_route, queue_named
from bridges.rocketmq.signing import sign
from bridges.rocketmq.source import subscription_of
from schemas.connections import Secret

ROUTE = b"""{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"b","cluster":"C"},
{"brokerAddrs":{"0":"10.0.0.3:10911"},"brokerName":"a","cluster":"C","enableActingMaster":false},
{"brokerAddrs":{1:"10.0.0.4:10911"},"brokerName":"slave{1:2}","cluster":"C"}],"filterServerTable":{},
"queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":2,"topicSysFlag":0,"writeQueueNums":1},
{"brokerName":"a","perm":4,"readQueueNums":1,"writeQueueNums":1},{"brokerName":"slave{1:2}","perm":6,"readQueueNums":1,"writeQueueNums":1},
{"brokerName":"unknown","perm":6,"readQueueNums":1,"writeQueueNums":1}]}"""


def test_a_route_as_an_old_name_server_writes_it() -> None:
    assert parse_route(ROUTE) == Route(
        (Queue("b", 0),), (Queue("a", 0), Queue("b", 0), Queue("b", 1)), {"a": "10.0.0.3:10911", "b": "10.0.0.1:10911"}, "C"
    )
    assert parse_route(b"{}") == Route()
    assert parse_route(b'{"queueDatas":null,"brokerDatas":null}') == Route()


def test_the_brokers_of_a_cluster() -> None:
    body = b'{"brokerAddrTable":{"a":{"brokerAddrs":{0:"h:1"},"brokerName":"a","cluster":"C"}},"clusterAddrTable":{"C":["a"]}}'
    assert parse_cluster(body) == Cluster("C", {"a": "h:1"})
    assert parse_cluster(b"{}") == Cluster("", {})


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"queueDatas":[{}]}', b'{"brokerDatas":{}}', b"null", b'{"a":' + b"[" * 100_000])
def test_what_is_no_route_is_an_error(body: bytes) -> None:
    with pytest.raises(RemotingError):
        parse_route(body)


def test_queues_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "QUEUES_LIMIT", 1)
    with pytest.raises(RemotingError, match="more than 1"):
        parse_route(ROUTE)


@given(st.binary(max_size=100))
def test_any_bytes_as_words(data: bytes) -> None:
    for parse in (parse_route, parse_cluster):
        try:
            parse(data)
        except RemotingError:
            continue
    parse_settings(data)


@pytest.mark.parametrize("end", range(0, len(ROUTE) - 1, 7))
def test_every_truncation_of_a_route_is_an_error(end: int) -> None:
    with pytest.raises(RemotingError):
        parse_route(ROUTE[:end])


@pytest.mark.parametrize(
    ("name", "queue"), [("a:3", Queue("a", 3)), ("a:b:0", Queue("a:b", 0)), ("a", None), ("a:", None), ("a:-1", None), ("a:x", None)]
)
def test_names_of_queues(name: str, queue: Queue | None) -> None:
    assert queue_named(name) == queue
    assert queue is None or queue.name == name


CONTROLLED = "enableControllerMode=true\nallAckInSyncStateSet=true\nminInSyncReplicas=2"


@pytest.mark.parametrize(
    ("flush", "role", "more", "weakness"),
    [
        ("SYNC_FLUSH", "ASYNC_MASTER", "", ""),
        ("ASYNC_FLUSH", "SYNC_MASTER", "", ""),
        ("ASYNC_FLUSH", "SYNC_MASTER", "inSyncReplicas=2", ""),
        ("ASYNC_FLUSH", "SYNC_MASTER", "inSyncReplicas=1", "inSyncReplicas 1"),
        ("ASYNC_FLUSH", "SYNC_MASTER", "inSyncReplicas=2\nenableAutoInSyncReplicas=true\nminInSyncReplicas=1", "minInSyncReplicas 1"),
        ("ASYNC_FLUSH", "SYNC_MASTER", f"inSyncReplicas=1\n{CONTROLLED}", ""),
        ("ASYNC_FLUSH", "ASYNC_MASTER", CONTROLLED, "brokerRole ASYNC"),
        ("ASYNC_FLUSH", "ASYNC_MASTER", "", "flushDiskType is ASYNC_FLUSH"),
        ("ASYNC_FLUSH", "SLAVE", "", "brokerRole SLAVE"),
        ("", "", "", "not told"),
    ],
)
def test_what_a_brokers_word_is_worth(flush: str, role: str, more: str, weakness: str) -> None:
    settings = parse_settings(f"flushDiskType={flush}\nbrokerRole={role}\n{more}".encode())
    assert weakness in settings.weakness
    assert bool(weakness) is bool(settings.weakness)


def test_other_settings() -> None:
    settings = parse_settings(b"maxMessageSize=4194304\nenablePropertyFilter=true\nnonsense\n=x")
    assert (settings.largest, settings.sql) == (4_194_304, True)
    assert parse_settings(b"maxMessageSize=many").largest == 0


@pytest.mark.parametrize(
    ("text", "value"), [("", 0), ("a", 97), ("hello", 99_162_322), ("TagA", 2_598_919), ("😀", 1_772_899), ("polygenelubricants", -(2**31))]
)
def test_javas_hash(text: str, value: int) -> None:
    assert java_hash(text) == value


def test_a_heartbeat() -> None:
    told = json.loads(encode_heartbeat("me", ["p"], [Consumer("g", Subscription("T", "b || a"), 7)]))
    assert (told["clientID"], told["producerDataSet"]) == ("me", [{"groupName": "p"}])
    (consumer,) = told["consumerDataSet"]
    assert (consumer["groupName"], consumer["consumeType"], consumer["messageModel"]) == ("g", "CONSUME_ACTIVELY", "CLUSTERING")
    (subscription,) = consumer["subscriptionDataSet"]
    assert subscription == {
        "classFilterMode": False, "topic": "T", "subString": "b || a", "tagsSet": ["a", "b"], "codeSet": [97, 98], "subVersion": 7,
        "expressionType": "TAG",
    }  # fmt: skip
    assert json.loads(encode_check("me", Consumer("g", Subscription("T", "a > 1", "SQL92"), 7)))["subscriptionData"]["expressionType"] == "SQL92"
    assert json.loads(encode_group("g"))["groupName"] == "g"


def test_subscriptions() -> None:
    assert subscription_of("T", "", "") == Subscription("T", "*", "TAG")
    assert subscription_of("T", " a || b ", "").tags == {"a", "b"}
    assert subscription_of("T", "*", "").tags == frozenset()
    assert subscription_of("T", "", "a = 1") == Subscription("T", "a = 1", "SQL92")
    assert subscription_of("T", "", "a = 1").tags == frozenset()


def test_a_signature_over_sorted_fields_and_body() -> None:
    signed = sign({"topic": "T", "a": "1", "Signature": "old"}, b"body", "access", Secret("secret"))
    assert signed == {"topic": "T", "a": "1", "AccessKey": "access", "Signature": "4n/dahIfKBuwasfc+3toIuEhiLo="}


def test_a_peers_words_come_in_one_bounded_line() -> None:
    error = Refused("h:1", 2, "busy\n\tat java.lang " + "x" * 1000)
    assert str(error).startswith("h:1 refuses: busy at java.lang xxx")
    assert len(error.remark) == REMARK_LIMIT
    assert str(Refused("h:1", 2, "")) == "h:1 refuses: no reason given (code 2)"
