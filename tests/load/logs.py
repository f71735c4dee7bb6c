"""Measures the gateway over Kafka and RocketMQ against its embedded log: ``python -m tests.load.logs --mqload PATH [--only NAME]``.

Client, gateway and broker share the machine. Both gateways run in turn with the same flags; medians are compared. RocketMQ syncs its disk for each
frame, one Kafka node has one replica (acknowledged: in its memory). Latency is at 100 messages a second. Exits 1 when a figure misses its goal.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.load.broker import Bench, processor_seconds
from tests.load.figures import PUBSUB, checked, faults_of
from tests.load.table import Table
from tests.support.brokers import guard
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import V4, V5, RocketMQ, Version
from tests.support.gateway import Gateway, on_kafka, on_rocketmq

LATENCY_MS = {"pubsub": 6.0, "p2p": 4.0}
GOALS = {"kafka": 0.4, "rocketmq": 0.35, "rocketmq4": 0.35}


def _kafka(folder: Path) -> str:
    return on_kafka(Kafka(folder, measured=True).start().address, "load-", shards=6)


def _rocketmq(version: Version) -> Callable[[Path], str]:
    def start(folder: Path) -> str:
        broker = RocketMQ(folder, version, settings={"flushDiskType": "SYNC_FLUSH"}, measured=True).start()
        return on_rocketmq(broker.address, "load-", shards=6, durability="checked")

    return start


CONFIGS: dict[str, Callable[[Path], str]] = {"kafka": _kafka, "rocketmq": _rocketmq(V5), "rocketmq4": _rocketmq(V4)}


def measure(bench: Bench, name: str, table: Table) -> None:
    gateways: dict[str, Gateway] = {"embedded": bench.gateway(), name: bench.gateway(config=CONFIGS[name](bench.folder / "broker"))}
    rates: dict[str, list[float]] = {each: [] for each in gateways}
    costs: dict[str, list[float]] = {each: [] for each in gateways}
    results = []
    for turn in range(bench.rounds + 1):
        for each, gateway in gateways.items():
            before = processor_seconds(gateway)
            result = checked(bench.load(gateway.mqtt, "pubsub", "-qos", "1", *PUBSUB))
            if turn:  # the first one warms the JVM up
                results.append(result)
                rates[each].append(result["deliveries_per_s"])
                costs[each].append((processor_seconds(gateway) - before) / max(1, result["delivered"]) * 1e6)
    ours, embedded = (statistics.median(rates[each]) for each in (name, "embedded"))
    faults = faults_of(results)
    words = ", ".join(f"{key} {value}" for key, value in faults.items())
    cost = f"{statistics.median(costs[name]):.1f} against {statistics.median(costs['embedded']):.1f} us of processor a delivery"
    goal = GOALS[name]
    remark = f"{ours:,.0f} against {embedded:,.0f} a second; {cost}; {words}"
    table.add(name, f"{ours / embedded:.2f}", f">= {goal}", ours >= goal * embedded and not any(faults.values()), remark)
    for mode, most in LATENCY_MS.items():
        slow = (mode, "-qos", "1", "-pubs", "1", "-subs", "1", "-rate", "100")
        rows = [checked(bench.load(gateways[name].mqtt, *slow)) for _ in range(bench.rounds)]
        parts = (("latency_ms", "p50"), ("latency_ms", "p99"), ("ack_ms", "p50"))
        p50, p99, ack = (statistics.median(row[kind][part] for row in rows) for kind, part in parts)
        table.add(f"{name} {mode} latency p50", f"{p50:.2f} ms", f"<= {most} ms", p50 <= most, f"p99 {p99:.2f} ms, PUBACK p50 {ack:.2f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.logs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mqload", type=Path, required=True, help="the load generator's program")
    parser.add_argument("--only", choices=CONFIGS, help="the log to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory() as scratch:
        for name in [arguments.only] if arguments.only else CONFIGS:
            bench = Bench(Path(scratch) / name, arguments.mqload.resolve(), arguments.rounds, arguments.seconds)
            try:
                measure(bench, name, table)
            finally:
                bench.close()
                guard.dismiss()
    table.summary()
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
