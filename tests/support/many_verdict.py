"""What is said of a run of many gateways: at subscribers, at a rule's target, and in the log."""

from __future__ import annotations

from collections import Counter, defaultdict

from schemas.presence import decode_presence
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Kind, Record
from streams.backend import Incoming
from streams.log import Log
from tests.support.checker import check
from tests.support.ledger import read_stamp
from tests.support.many_backbone import Backbone, read_all
from tests.support.many_world import ManyWorld


async def judge(world: ManyWorld, backbone: Backbone, target: str, log: Log) -> None:
    """``target``: where a rule wrote all of ``load``. Prints what there was; an AssertionError says what is wrong."""
    ledger = world.ledger
    wanted = {key for key, sent in ledger.sent.items() if sent.acked_at is not None and sent.topic.startswith("load/")}
    taken = await backbone.taken(target, wanted, 30.0)
    published, events = await read_all(log, PUBLISH_TOPIC), await read_all(log, PRESENCE_TOPIC)
    copies = Counter((record.client, record.payload) for record in published if record.kind == Kind.PUBLISH and record.qos == 2 and record.session)
    print(f"at the target {len(taken)}; QoS 2 publishes that the log holds more than once: {sum(count > 1 for count in copies.values())}")
    verdict = check(ledger)
    # Under QoS 1 how much comes again after a move depends on how far the old node's position was behind, on a busy machine by seconds
    verdict.duplicated = [fault for fault in verdict.duplicated if "under QoS 2" in fault[3]]
    # The will of a connection with a node that died falls due when that is given up: the same client's next one, elsewhere, may have ended before
    sentinels = {sentinel.name for sentinel in world.sentinels}
    verdict.reordered = [fault for fault in verdict.reordered if fault[1] not in sentinels]
    print(verdict)
    problems = [problem for actor in world.actors for problem in actor.problems] + at_target(world, taken) + unclean(events)
    assert not problems, (len(problems), problems[:10])
    assert verdict.ok, str(verdict)
    assert not world.stale, world.stale[:3]


def at_target(world: ManyWorld, taken: list[Incoming]) -> list[str]:
    """What is wrong at the rule's target. A rule may send a record twice, by one id; QoS 2 never two records for one publish."""
    ids: dict[tuple[str, int], set[str]] = defaultdict(set)
    newest: dict[str, int] = defaultdict(lambda: -1)
    problems = []
    for message in taken:
        key = read_stamp(message.body)
        sent = world.ledger.sent.get(key) if key is not None else None
        if key is None or sent is None:
            problems.append(f"foreign message in {message.queue} at {message.offset}")
            continue
        if key not in ids:
            if key[1] < newest[key[0]]:
                problems.append(f"{key[0]}/{key[1]} comes behind {newest[key[0]]}")
            newest[key[0]] = max(newest[key[0]], key[1])
        ids[key].add(message.id)
    for key, sent in world.ledger.sent.items():
        if not sent.topic.startswith("load/"):
            continue
        if sent.acked_at is not None and key not in ids:
            problems.append(f"lost on the way out: {key[0]}/{key[1]}")
        if sent.qos == 2 and len(ids[key]) > 1:
            problems.append(f"{key[0]}/{key[1]} under QoS 2 left as {len(ids[key])} records")
    return problems


def unclean(events: list[Record]) -> list[str]:
    """Connections with more than one tcpclean, or none though their client was connected again. A repeat has the same id.

    The newest is the one that began last, as in the fold of the status: its connect may lie before that of one whose log hung.
    """
    cleans: dict[str, set[bytes]] = defaultdict(set)
    began: dict[str, dict[str, int]] = defaultdict(dict)
    for record in events:
        channel = decode_presence(record.payload).channel
        if record.kind == Kind.CONNECT:
            began[record.client][channel] = record.time
        elif record.kind == Kind.TCPCLEAN:
            cleans[channel].add(record.id)
    problems = []
    for client, made in began.items():
        for place, channel in enumerate(sorted(made, key=lambda channel: (made[channel], channel))[:-1]):
            if (count := len(cleans[channel])) != 1:
                problems.append(f"connection {place} of {client} has {count} tcpcleans: {history(client, events)}")
    return problems


def history(client: str, events: list[Record]) -> str:
    """Its events in the order of the log: what, of which node's start, when, and by the end of the channel's name."""
    shown = [(record, decode_presence(record.payload).channel) for record in events if record.client == client]
    return ", ".join(f"{Kind(record.kind).name} epoch {record.epoch} at {record.time} of {channel[-6:]}" for record, channel in shown)
