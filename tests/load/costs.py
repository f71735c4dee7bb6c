"""What a publish, a delivery, a connection and an offline message cost: ``python -m tests.load.costs --mqload PATH [--only NAME]``.

Processor time of the gateway and of the broker's processes, and bytes that reach the disk, on each log: to reckon with how much a machine
will hold. Nothing here has a goal. Client, gateway and broker share the machine, so that rates say nothing; costs do.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
from psycopg import sql

from tests.load.broker import memory, processor_seconds
from tests.load.figures import COOL_DOWN, checked
from tests.load.moves import moves
from tests.load.rule_bench import RuleBench
from tests.support.brokers import guard
from tests.support.brokers.rocketmq import V5, RocketMQ
from tests.support.certificates import Authority
from tests.support.gateway import Gateway, on_kafka, on_rocketmq
from tests.support.postgresql import PostgreSQL
from tests.support.process import Process

SHARDS = 6
CONNECTIONS = 10_000
SETTLED = 2.0
SPEEDS: Mapping[str, Sequence[str]] = {"10,000/s": ("-rate", "2500"), "flat out": ()}
QUIET = ("-rate", "250")
"""Messages a second of each of four publishers: groups are small then, and a sync is for few."""


class Cost(NamedTuple):
    """Of one message: us of processor, and bytes written, of the gateway and of the broker."""

    gateway: float
    broker: float
    bytes: float

    def __str__(self) -> str:
        return f"{self.gateway:8.1f} us gateway {self.broker:8.1f} us broker {self.bytes:9,.0f} B written"


def _processes(process: Process) -> list[psutil.Process]:
    own = psutil.Process(process.pid)
    return [own, *own.children(recursive=True)]


def _spent(processes: Sequence[Process]) -> tuple[float, int]:
    seconds, written = 0.0, 0
    for each in (found for process in processes for found in _processes(process)):
        times = each.cpu_times()
        seconds += times.user + times.system
        written += each.io_counters().write_bytes
    return seconds, written


class Shape:
    """A gateway on one kind of log, with its broker."""

    def __init__(self, bench: RuleBench, log: str) -> None:
        self.bench = bench
        self.brokers: list[Process] = []
        config = ""
        if log == "kafka":
            self.brokers = list(bench.kafka.nodes)
            config = on_kafka(bench.kafka.address, "cost-", shards=SHARDS)
        elif log == "rocketmq":
            (folder := bench.folder / "synced").mkdir(parents=True)
            broker = RocketMQ(folder, V5, settings={"flushDiskType": "SYNC_FLUSH"}, measured=True).start()
            self.brokers = list(broker.brokers)
            config = on_rocketmq(broker.address, "cost-", shards=SHARDS, durability="checked")
        self.gateway = bench.gateway(config=config)

    def cost(self, figure: str, mode: str, *flags: str) -> Cost:
        """Median over the rounds; the first one, which warms up, doesn't count. ``figure`` is what mqload counts."""
        found = []
        for turn in range(self.bench.rounds + 1):
            before, beside = _spent([self.gateway]), _spent(self.brokers)
            result = checked(self.bench.load(self.gateway.mqtt, mode, *flags))
            time.sleep(COOL_DOWN)
            after, there = _spent([self.gateway]), _spent(self.brokers)
            count = max(1, result[figure])
            if turn:
                written = after[1] - before[1] + there[1] - beside[1]
                found.append(((after[0] - before[0]) / count * 1e6, (there[0] - beside[0]) / count * 1e6, written / count))
        return Cost(*(statistics.median(column) for column in zip(*found, strict=True)))


def messages(bench: RuleBench, log: str) -> None:
    """Publishes, deliveries and offline messages on one log."""
    shape = Shape(bench, log)
    loads: dict[str, tuple[str, str, tuple[str, ...]]] = {
        "publish, flat out": ("acked", "publish", ("-qos", "1", "-pubs", "4")),
        "publish, 1,000/s": ("acked", "publish", ("-qos", "1", "-pubs", "4", *QUIET)),
        "publish and delivery, flat out": ("delivered", "pubsub", ("-qos", "1", "-pubs", "4", "-subs", "4")),
        "publish and delivery, 1,000/s": ("delivered", "pubsub", ("-qos", "1", "-pubs", "4", "-subs", "4", *QUIET)),
        "publish and P2P, flat out": ("delivered", "p2p", ("-qos", "1", "-pubs", "4")),
        "delivery, 1 to 50": ("delivered", "fanout", ("-qos", "1", "-pubs", "1", "-subs", "50")),
        "offline, stored and fetched": ("delivered", "offline", ("-qos", "1", "-pubs", "1", "-subs", "1", "-count", "20000", "-drain", "60")),
    }
    for name, (figure, mode, flags) in loads.items():
        print(f"{log:9} {name:32} {shape.cost(figure, mode, *flags)}", flush=True)


def connections(bench: RuleBench) -> None:
    """Connects, and connections that are idle: in clear text, over TLS, and with state in PostgreSQL; on the embedded log."""
    (folder := bench.folder / "certificates").mkdir(parents=True)
    pair = Authority(folder).issue("gateway")
    secured = Gateway(bench.folder / "secured", listen=("mqtts",), config=f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n')
    server = PostgreSQL("postgresql", bench.folder / "postgresql").start()
    try:
        _connect(bench, "connect", bench.gateway())
        _connect(bench, "connect over TLS", secured.start(), "-tls")
        stored = bench.gateway(config=f'[store]\nurl = "{_database(server, "connects")}"\n')
        _connect(bench, "connect, state in PostgreSQL", stored, beside=server)
    finally:
        secured.kill()
        server.kill_all()


def _connect(bench: RuleBench, name: str, gateway: Gateway, *flags: str, beside: Process | None = None) -> None:
    endpoint, servers = gateway.endpoints["mqtts"] if flags else gateway.mqtt, [beside] if beside is not None else []
    checked(bench.load(endpoint, "connect", "-conns", "200", *flags, seconds=0.5))
    time.sleep(SETTLED)
    idle, before, (there, _) = memory(gateway), processor_seconds(gateway), _spent(servers)
    with bench.holding(endpoint, CONNECTIONS, *flags):
        spent, grown = processor_seconds(gateway) - before, memory(gateway) - idle
        served = _spent(servers)[0] - there
    each, store = spent / CONNECTIONS * 1e6, served / CONNECTIONS * 1e6
    print(f"{'embedded':9} {name:32} {each:8.1f} us gateway {store:8.1f} us PostgreSQL {grown / CONNECTIONS:9,.0f} B while it is idle", flush=True)


def fleet(bench: RuleBench) -> None:
    """Clients at one of 1, 2 or 3 nodes over Kafka: what a delivered message costs that node, and each of the others, which reads it too."""
    server = PostgreSQL("postgresql", bench.folder / "postgresql").start()
    try:
        for size in (1, 2, 3):
            nodes = _nodes(bench, server, size)
            for words, flags in SPEEDS.items():
                here, *elsewhere = _spent_by_each(bench, nodes, flags)
                others = ", ".join(f"{cost:.1f}" for cost in elsewhere) or "none"
                print(f"{'kafka':9} {f'1 of {size} nodes, {words}':32} {here:8.1f} us gateway; the others {others}", flush=True)
            for node in nodes:
                node.kill()
    finally:
        server.kill_all()


def kept_sessions(bench: RuleBench) -> None:
    """Over Kafka and PostgreSQL, on two nodes."""
    server = PostgreSQL("postgresql", bench.folder / "postgresql").start()
    try:
        nodes = _nodes(bench, server, 2)
        here, there = nodes
        asyncio.run(moves(here, there, lambda: [*(processor_seconds(node) if node.alive else 0.0 for node in nodes), _spent([server])[0]]))
    finally:
        server.kill_all()


def _spent_by_each(bench: RuleBench, nodes: Sequence[Gateway], flags: Sequence[str]) -> list[float]:
    """us of processor of each node for a message that clients of the first one have; medians over the rounds."""
    found = []
    for _ in range(bench.rounds + 1):
        before = [processor_seconds(node) for node in nodes]
        result = checked(bench.load(nodes[0].mqtt, "pubsub", "-qos", "1", "-pubs", "4", "-subs", "4", *flags))
        time.sleep(COOL_DOWN)
        found.append([(processor_seconds(node) - start) / max(1, result["delivered"]) * 1e6 for node, start in zip(nodes, before, strict=True)])
    return [statistics.median(column) for column in zip(*found[1:], strict=True)]


def _database(server: PostgreSQL, name: str) -> str:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.url(name)


def _nodes(bench: RuleBench, server: PostgreSQL, size: int) -> list[Gateway]:
    database = f"fleet{size}"
    log = on_kafka(bench.kafka.address, f"{database}-", shards=SHARDS)
    shared = f'{log}[store]\nurl = "{_database(server, database)}"\n[keys]\nseal_file = "{bench.folder / database}.key"\n[node]\nmany = true\n'
    return [bench.gateway(config=f'{shared}id = "node{number}"\n') for number in range(1, size + 1)]


ALL: Mapping[str, Callable[[RuleBench], None]] = {
    "embedded": lambda bench: messages(bench, "embedded"),
    "kafka": lambda bench: messages(bench, "kafka"),
    "rocketmq": lambda bench: messages(bench, "rocketmq"),
    "connections": connections,
    "fleet": fleet,
    "sessions": kept_sessions,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.costs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mqload", type=Path, required=True, help="the load generator's program")
    parser.add_argument("--only", choices=ALL, help="a part of the table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in [arguments.only] if arguments.only else ALL:
            bench = RuleBench(Path(scratch) / name, arguments.mqload.resolve(), arguments.rounds, arguments.seconds)
            try:
                ALL[name](bench)
            finally:
                bench.close()
                guard.dismiss()
    return 0


if __name__ == "__main__":
    sys.exit(main())
