"""The newest records (or, of an inflow rule, messages) through a rule, without sending, storing or moving anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.rules.engine import Engine, feed_of, owner_of
from gateway.rules.info import incoming_json, outgoing_json
from schemas.errors import BackendError
from schemas.positions import At
from schemas.records import Record
from schemas.rules import Rule, RuleError
from streams.backend import Incoming
from streams.mapping.conditions import Conditions
from streams.mapping.inflow import Expired, InflowMapper, Stamp
from streams.mapping.outflow import OutflowMapper
from streams.mapping.status import StatusMapper
from streams.repeats import Repeats
from streams.runtime.feed import open_reader, pick

MAX_RECORDS: Final = 10_000
"""Records of the log that are looked at."""
SHOWN: Final = 100
"""Messages that an answer has; the rest is counted."""
WITHIN: Final = 5.0


async def dry_run(engine: Engine, rule: Rule, count: int) -> dict[str, Any]:
    """What would be sent (or published) of the last ``count``."""
    if not 1 <= count <= MAX_RECORDS:
        raise RuleError("records", f"it must be a number from 1 to {MAX_RECORDS}")
    return await (_inflow(engine, rule, count) if rule.kind == "inflow" else _outflow(engine, rule, count))


async def _outflow(engine: Engine, rule: Rule, count: int) -> dict[str, Any]:
    around = engine.around
    connection = around.connections[rule.connection]
    mapper = StatusMapper(rule, connection) if rule.kind == "status" else OutflowMapper(rule, connection, f"{around.instance}:{rule.id}")
    conditions = Conditions(rule)
    looked, records = await _newest(engine, feed_of(rule), count, owner_of(rule), mapper.sources)
    verdicts = await around.judge(lambda: conditions.judge_records(records)) if conditions else None
    mapped = mapper.map_all(records, verdicts)
    return {
        "records": looked,
        "matching": len(records),
        "sent": len(mapped.messages),
        "filtered": mapped.filtered,
        "looped": mapped.looped,
        "messages": [outgoing_json(message) for message in mapped.messages[:SHOWN]],
        "deadLetters": [{"messageId": records[p.origin].id.hex().upper(), "reason": p.reason} for p in mapped.poison[:SHOWN]],
    }


async def _newest(engine: Engine, topic: str, count: int, is_mine: Callable[[str], bool], sources: frozenset[int]) -> tuple[int, list[Record]]:
    """How many records were looked at, and those that are the rule's."""
    log = engine.around.log
    looked, found = 0, []
    for shard, (first, last) in (await log.ends(topic)).items():
        end = last.offset + last.index
        place = max(first.offset + first.index, end - count)
        if place >= end:
            continue
        reader, repeats = open_reader(log, topic, {shard: At(shard, place, 0)}), Repeats()
        try:
            while place < end:
                batch = await reader.next(end - place, 1 << 20)
                picks = pick(batch, repeats, is_mine, sources)
                found += [batch.records[index] for index in picks]
                looked += len(batch.records)
                place = batch.end.offset + batch.end.index
                await asyncio.sleep(0)
        finally:
            reader.close()
    return looked, found


async def _inflow(engine: Engine, rule: Rule, count: int) -> dict[str, Any]:
    around = engine.around
    try:
        async with asyncio.timeout(WITHIN):
            messages = await _newest_messages(engine, rule, count)
    except (BackendError, TimeoutError) as error:
        raise RuleError("connection", f"the source can't be read now: {error or 'no answer'}", conflict=True) from None
    conditions, mapper = Conditions(rule), InflowMapper(rule, around.limits, around.is_p2p)
    verdicts = await around.judge(lambda: conditions.judge_incoming(messages)) if conditions else None
    answer: dict[str, Any] = {"records": len(messages), "sent": 0, "filtered": 0, "messages": [], "deadLetters": []}
    for index, message in enumerate(messages):
        verdict = None if verdicts is None else verdicts[index]
        if verdict is not None and verdict.body is None:
            answer["filtered"] += 1
            continue
        body = None if verdict is None else verdict.body
        mapped = verdict.reason if verdict is not None and verdict.reason else mapper.map(message, Stamp(bytes(16), around.wall()), body)
        if isinstance(mapped, Record):
            answer["sent"] += 1
            if len(answer["messages"]) < SHOWN:
                answer["messages"].append(incoming_json(message) | {"topic": mapped.topic, "qos": mapped.qos})
        elif isinstance(mapped, Expired):
            answer["filtered"] += 1
        elif len(answer["deadLetters"]) < SHOWN:
            answer["deadLetters"].append(incoming_json(message) | {"reason": mapped})
    return answer


async def _newest_messages(engine: Engine, rule: Rule, count: int) -> list[Incoming]:
    """The last ``count`` of all queues together, as near as their ends tell."""
    backend = engine.around.backends[rule.connection]
    last = await backend.resolve(rule.backend_topic, "now")
    share = max(1, count // max(1, len(last)))
    first = await backend.resolve(rule.backend_topic, "earliest")
    places: Mapping[str, int] = {queue: max(first.get(queue, 0), end - share) for queue, end in last.items()}
    left = sum(last[queue] - place for queue, place in places.items())
    source = backend.source(rule.id, rule.backend_topic, places, tags=rule.tags, sql=rule.sql)
    messages: list[Incoming] = []
    try:
        while len(messages) < left:
            async with asyncio.timeout(WITHIN / 5):
                messages += await source.next(left - len(messages), 1 << 20)
    except TimeoutError:
        pass  # a filter at the broker leaves some out
    finally:
        await source.close()
    return [message for message in messages if message.offset < last.get(message.queue, 0)]
