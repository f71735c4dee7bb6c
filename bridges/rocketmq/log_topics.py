"""The topics of the log: made where they are missing, checked where they are there. What is wrong is one line with the command that mends it.

The queues of a topic on all brokers, sorted by broker name and number, are its shards. A broker keeps what it acknowledged (design: promise 1)
where it syncs its disk or waits for a replica. Knows mqadmin's words; log.py asks once, at start.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Mapping
from typing import Final

import msgspec

from bridges.framed.options import MIB
from bridges.rocketmq import calls
from bridges.rocketmq.brokersettings import BrokerSettings
from bridges.rocketmq.client import Client
from bridges.rocketmq.codes import ResponseCode
from bridges.rocketmq.errors import Refused
from bridges.rocketmq.log_options import RocketmqLogOptions
from bridges.rocketmq.outgoing import MESSAGE_LIMIT, topic_fault
from bridges.rocketmq.routes import Queue, Route
from bridges.rocketmq.terms import weakness_at
from schemas.errors import StartError

_log = logging.getLogger(__name__)

HEAD: Final = 1024
"""Bytes of a message beside its body, at most: what RocketMQ counts differs by version."""
USUAL_LARGEST: Final = 4 * MIB
"""What a broker takes where nobody has said otherwise and we may not ask."""
MADE_WITHIN: Final = 2.0
"""Seconds for which a topic with too few queues is taken for one that is being made."""
PAUSE: Final = 0.05
"""Seconds between questions to a name server that will know soon."""


class Found(msgspec.Struct, frozen=True):
    """``queues``: by topic the queue of each shard. ``largest``: bytes of a frame. ``weaknesses``: why an acknowledged record could be lost."""

    queues: Mapping[str, tuple[Queue, ...]]
    largest: int
    weaknesses: tuple[str, ...]


async def prepare(client: Client, names: list[str], group: str, servers: tuple[str, ...], options: RocketmqLogOptions) -> Found:
    """Topics that the log can use. StartError where they can't be had, or brokers could lose what they acknowledged though that was to be checked."""
    at = shlex.quote(";".join(servers))
    queues: dict[str, tuple[Queue, ...]] = {}
    masters: dict[str, str] = {}
    for name in names:
        fault = topic_fault(name)
        if fault:
            raise StartError(f"log.prefix: {fault}")
        route = await client.route(name, fresh=True)
        if route is None or not (route.writable or route.readable):
            await _create(client, name, at, options)
            route = await _routed_soon(client, name, options.shards)
        elif len(route.writable) < options.shards:
            # Another node may be making it, on one broker after the other
            try:
                async with asyncio.timeout(MADE_WITHIN):
                    route = await _routed_soon(client, name, options.shards)
            except TimeoutError:
                pass
        queues[name] = check_queues(name, route, options.shards)
        masters |= route.masters
        for address in route.masters.values():
            await _check_kind(client, name, address, at)
    for address in masters.values():
        await _check_group(client, address, group, names[0], at)
    settings = {address: await _settings(client, address) for address in masters.values()}
    weaknesses = [words for address, told in settings.items() if (words := weakness_at(address, told))]
    if weaknesses and options.checked:
        raise StartError(f'{weaknesses[0]}; or accept that acknowledged messages can be lost: log.durability = "as configured"')
    for address, told in settings.items():
        _compare_ages(address, told, options)
    largest = min(*(told.largest or USUAL_LARGEST for told in settings.values()), MESSAGE_LIMIT) - HEAD
    if options.packet > MESSAGE_LIMIT - HEAD:
        raise StartError(f"limits.packet = {options.packet} is more than RocketMQ carries: lower it to {MESSAGE_LIMIT - MIB} or less")
    if largest < options.packet:
        raise StartError(
            f"brokers take messages of {largest + HEAD} bytes, too little for limits.packet = {options.packet}: "
            f"set maxMessageSize={options.packet + MIB} at each broker, or lower limits.packet"
        )
    return Found(queues, largest, tuple(weaknesses))


def check_queues(name: str, route: Route, shards: int) -> tuple[Queue, ...]:
    """The queue of each shard, which is the same at every start: so all have to be there."""
    if route.writable != route.readable:
        raise StartError(f"topic {name} has queues that can be written and not read, or the other way: give it as many of each, with permission 6")
    count = len(route.writable)
    if count != shards:
        brokers = ", ".join(sorted({queue.broker for queue in route.writable})) or "none"
        raise StartError(
            f"topic {name} has {count} queues (brokers: {brokers}) and log.shards says {shards}: start the brokers that are away, or set "
            f"log.shards = {count} where that is all there ever were (a key's shard follows from it, so queues are not to be added to a log in use)"
        )
    return route.writable


def shares(masters: Mapping[str, str], shards: int) -> dict[str, int]:
    """By address how many queues of a new topic a broker gets; the first ones by name one more where it doesn't come out even."""
    addresses = [address for _, address in sorted(masters.items())][:shards]
    return {address: shards // len(addresses) + (index < shards % len(addresses)) for index, address in enumerate(addresses)}


def create_command(at: str, name: str, parts: Mapping[str, int]) -> str:
    """What somebody who may can type instead of us. ``at`` are the name servers, quoted."""
    return " && ".join(f"mqadmin updateTopic -n {at} -b {address} -t {shlex.quote(name)} -r {count} -w {count}" for address, count in parts.items())


async def _create(client: Client, name: str, at: str, options: RocketmqLogOptions) -> None:
    masters = (await calls.cluster(client)).masters
    if not masters:
        raise StartError(f"topic {name} is missing and the name servers at {at} know no broker that could have it: start the brokers")
    parts = shares(masters, options.shards)
    for address, count in parts.items():
        try:
            await calls.create_topic(client, address, name, count, "")
        except Refused as error:
            raise StartError(f"topic {name} is missing and can't be created ({error}); have it created: {create_command(at, name, parts)}") from error


async def _routed_soon(client: Client, name: str, shards: int) -> Route:
    """Brokers tell name servers one after the other. The caller's deadline ends this."""
    while True:
        route = await client.route(name, fresh=True)
        if route is not None and len(route.writable) >= shards:
            return route
        await asyncio.sleep(PAUSE)


async def _check_kind(client: Client, name: str, address: str, at: str) -> None:
    attributes = await calls.topic_attributes(client, address, name)
    if attributes is not None and attributes.get("cleanup.policy", "DELETE").upper() != "DELETE":
        command = f"mqadmin deleteTopic -n {at} -c CLUSTER -t {shlex.quote(name)}"
        raise StartError(f"topic {name} is compacted, so it forgets records: {command} and start again, or use another log.prefix")


async def _check_group(client: Client, address: str, group: str, topic: str, at: str) -> None:
    """Brokers let a group read that they know; where they don't learn of groups by themselves it is made."""
    answer = await calls.try_pull(client, address, group, topic)
    if answer.code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST:
        command = f"mqadmin updateSubGroup -n {at} -b {address} -g {shlex.quote(group)}"
        try:
            await calls.create_group(client, address, group)
        except Refused as error:
            words = f"group {group}, by which the log reads, is missing and can't be created ({error}); have it created: {command}"
            raise StartError(words) from error
    elif answer.code == ResponseCode.NO_PERMISSION:
        cure = f"allow it PUB|SUB on the log's topics and SUB on group {group}"
        raise StartError(f"the log's principal may not read topic {topic} at {address} ({answer.remark}): {cure}")


async def _settings(client: Client, address: str) -> BrokerSettings:
    try:
        return await calls.broker_settings(client, address)
    except Refused as error:
        return BrokerSettings(weakness=f"its settings can't be read ({error})")


def _compare_ages(address: str, told: BrokerSettings, options: RocketmqLogOptions) -> None:
    if told.keeps_hours and told.keeps_hours * 3600 < options.retention_age:
        _log.warning(
            "log.retention_shorter broker=%s fileReservedTime=%d hours=%.1f: log.retention_age asks for more; raise fileReservedTime of the broker",
            address,
            told.keeps_hours,
            options.retention_age / 3600,
        )
