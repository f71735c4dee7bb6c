"""Where a topic's queues are, as a name server tells it: JSON to values, without I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from bridges.rocketmq.codes import MASTER, READABLE, WRITABLE
from bridges.rocketmq.errors import RemotingError

QUEUES_LIMIT = 16_384
"""Queues of a topic; a name server that tells more is not believed."""

_STRING_OR_BARE_KEY = re.compile(rb'"(?:[^"\\]|\\.)*"|([{,]\s*)(-?\d+)(\s*:)')


class _Queue(msgspec.Struct):
    brokerName: str
    readQueueNums: int = 0
    writeQueueNums: int = 0
    perm: int = 0


class _Broker(msgspec.Struct):
    brokerName: str
    brokerAddrs: dict[str, str]
    cluster: str = ""


class _Route(msgspec.Struct):
    queueDatas: list[_Queue] | None = None
    brokerDatas: list[_Broker] | None = None


class _Cluster(msgspec.Struct):
    brokerAddrTable: dict[str, _Broker] | None = None


_decode_route = msgspec.json.Decoder(_Route).decode
_decode_cluster = msgspec.json.Decoder(_Cluster).decode


class Queue(msgspec.Struct, frozen=True, order=True):
    """A queue of a topic. Its name is what the port calls it: `broker-a:3`."""

    broker: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.broker}:{self.number}"


def queue_named(name: str) -> Queue | None:
    """The way back from a queue's name; None for what is none."""
    broker, separator, number = name.rpartition(":")
    return Queue(broker, int(number)) if separator and number.isascii() and number.isdigit() else None


class Route(msgspec.Struct, frozen=True):
    """``writable`` and ``readable`` are sorted, and only those whose broker has a master; ``masters`` are addresses by broker name."""

    writable: tuple[Queue, ...] = ()
    readable: tuple[Queue, ...] = ()
    masters: Mapping[str, str] = {}
    cluster: str = ""


def parse_route(body: bytes) -> Route:
    try:
        told = _decode_route(_quote_keys(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemotingError(f"a name server's route can't be read: {error}") from error
    masters = _masters(told.brokerDatas or ())
    writable: list[Queue] = []
    readable: list[Queue] = []
    for queues in told.queueDatas or ():
        if queues.brokerName not in masters:
            continue
        if len(writable) + queues.writeQueueNums > QUEUES_LIMIT or len(readable) + queues.readQueueNums > QUEUES_LIMIT:
            raise RemotingError(f"a name server tells of more than {QUEUES_LIMIT} queues")
        if queues.perm & WRITABLE:
            writable.extend(Queue(queues.brokerName, number) for number in range(queues.writeQueueNums))
        if queues.perm & READABLE:
            readable.extend(Queue(queues.brokerName, number) for number in range(queues.readQueueNums))
    cluster = told.brokerDatas[0].cluster if told.brokerDatas else ""
    return Route(tuple(sorted(writable)), tuple(sorted(readable)), masters, cluster)


class Cluster(msgspec.Struct, frozen=True):
    """``masters`` are the addresses of all brokers that take writes, by name."""

    name: str
    masters: Mapping[str, str]


def parse_cluster(body: bytes) -> Cluster:
    """A name server may know several clusters: the name is the first one's."""
    try:
        told = _decode_cluster(_quote_keys(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemotingError(f"a name server's list of brokers can't be read: {error}") from error
    brokers = told.brokerAddrTable or {}
    return Cluster(next((broker.cluster for broker in brokers.values()), ""), _masters(brokers.values()))


def _masters(brokers: Iterable[_Broker]) -> dict[str, str]:
    return {broker.brokerName: broker.brokerAddrs[str(MASTER)] for broker in brokers if str(MASTER) in broker.brokerAddrs}


def _quote_keys(body: bytes) -> bytes:
    """Name servers of 4.9 write `{0:"address"}`, which is no JSON: bare whole numbers as keys get quotes, what lies in strings stays."""
    return _STRING_OR_BARE_KEY.sub(lambda found: found[0] if found[1] is None else b'%b"%b"%b' % (found[1], found[2], found[3]), body)
