"""Measures rules against real brokers: ``python -m tests.load.rules --mqload PATH [--only NAME] [--seconds 60]``. Prints the table.

Load generator, gateway and broker share the machine. A rate is held when the rule carries it and its lag does not grow. What a
rule costs those who publish is measured in turn with a gateway that has none. Exits 1 when a figure misses its goal.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.load import rule_clients
from tests.load.broker import processor_seconds
from tests.load.figures import COOL_DOWN, Broken, checked
from tests.load.rule_bench import KINDS, RuleBench, Watch, send_async_rate
from tests.load.rule_clients import PARENT, inflow_latency, inflow_rate, median_ms, outflow_latency
from tests.load.rule_troubles import half_hearted, late
from tests.load.table import Table
from tests.support.brokers.java import free_ports
from tests.support.gateway import Gateway

OUTFLOW = {"rocketmq": 25_000, "rocketmq ordered": 20_000, "kafka": 25_000}
INFLOW = {"rocketmq": 15_000, "kafka": 20_000}
SPARE = 1.02
"""The load is a little above the goal."""
TIMES_OFFICIAL = 8
KEEPS = 0.9
"""Of the publishes acknowledged without a rule, so many with one whose target is in trouble."""
BARS = 99
"""Rules of which the load matches none."""


def outflow(bench: RuleBench, table: Table) -> None:
    """Four publishers at a rate; the rule carries it."""
    for name, goal in OUTFLOW.items():
        kind, ordered = name.split()[0], name.endswith("ordered")
        gateway = bench.with_connection(kind)
        rule = bench.create_rule(gateway, kind="outflow", topic=PARENT, backendTopic=bench.topic(kind, ordered=ordered), ordered=ordered)
        flags = ("-qos", "1", "-pubs", "4", "-rate", str(goal * SPARE / 4), "-parent", PARENT)
        checked(bench.load(gateway.mqtt, "publish", *flags, seconds=2.0))
        before = processor_seconds(gateway)
        with Watch(bench, gateway, rule) as watch:
            checked(bench.load(gateway.mqtt, "publish", *flags))
        cpu = processor_seconds(gateway) - before
        loaded = [row for row in watch.rows if watch.rows[0][0] + 1 < row[0] < watch.rows[0][0] + bench.seconds - 0.5]
        (start, first, _), (end, last, _) = loaded[0], loaded[-1]
        rate = (last - first) / (end - start)
        lags = [lag for _, _, lag in loaded]
        early, late = statistics.mean(lags[: len(lags) // 3]), statistics.mean(lags[-len(lags) // 3 :])
        passed = rate >= goal and late <= max(early * 2, goal * 0.5)
        remark = f"lag {early:,.0f} records at first, {late:,.0f} at the end; {cpu / bench.seconds:.2f} cores of the gateway"
        table.add(f"outflow {name}", f"{rate:,.0f} /s", f">= {goal:,}", passed, remark)
        gateway.kill()


def inflow(bench: RuleBench, table: Table) -> None:
    """A backend sends at a rate; four clients receive it all."""
    for kind, goal in INFLOW.items():
        gateway, topic = bench.with_connection(kind), bench.topic(kind)
        rule = bench.create_rule(gateway, kind="inflow", topic=PARENT, backendTopic=topic)
        bench.until(gateway, rule, lambda status: status["state"] != "starting" or bool(status["position"]))
        before = processor_seconds(gateway)

        async def measure(kind: str = kind, topic: str = topic, gateway: Gateway = gateway, goal: int = goal) -> tuple[float, int]:
            return await inflow_rate(bench.backend(kind), topic, gateway.mqtt, goal * SPARE, bench.seconds)

        rate, lacking = asyncio.run(measure())
        cpu = (processor_seconds(gateway) - before) / (bench.seconds + rule_clients.WARM_UP)
        passed = rate >= goal and lacking <= goal * 0.5
        table.add(f"inflow {kind}", f"{rate:,.0f} /s", f">= {goal:,}", passed, f"{lacking:,} on their way at the end; {cpu:.2f} cores of the gateway")
        gateway.kill()


def official(bench: RuleBench, table: Table) -> None:
    """The official Python producer alone, and how often that goes into what the outflow rule is held to."""
    rate = send_async_rate(bench, bench.topic("rocketmq"), min(bench.seconds, 10.0))
    times = OUTFLOW["rocketmq"] / rate
    table.add("times the official producer", f"{times:.1f}", f">= {TIMES_OFFICIAL}", times >= TIMES_OFFICIAL, f"its send_async alone: {rate:,.0f} /s")


def latency(bench: RuleBench, table: Table) -> None:
    """100 messages a second, both ways, on both."""
    for kind in KINDS:
        gateway, up, down = bench.with_connection(kind), bench.topic(kind), bench.topic(kind)
        out = bench.create_rule(gateway, kind="outflow", topic=PARENT, backendTopic=up)
        back = bench.create_rule(gateway, kind="inflow", topic=PARENT, backendTopic=down)
        for rule in (out, back):
            bench.until(gateway, rule, lambda status: status["state"] != "starting" or bool(status["position"]))

        async def measure(way: Callable[..., Any], topic: str, kind: str = kind, gateway: Gateway = gateway) -> list[float]:
            found: list[float] = await way(bench.backend(kind), topic, gateway.mqtt, 100.0, min(bench.seconds, 20.0))
            return found

        for name, way, topic in (("device to backend", outflow_latency, up), ("backend to device", inflow_latency, down)):
            taken = asyncio.run(measure(way, topic))[20:]
            if not taken:
                raise Broken(f"{name} over {kind}: nothing arrived")
            p50, p99 = median_ms(taken), statistics.quantiles(taken, n=100)[98] * 1000
            table.add(f"{name}, {kind}", f"{p50:.2f} ms", "<= 8 ms", p50 <= 8, f"p99 {p99:.2f} ms, {len(taken)} messages")
        gateway.kill()


def _publishing(bench: RuleBench, gateway: Gateway) -> float:
    result = checked(bench.load(gateway.mqtt, "publish", "-qos", "1", "-pubs", "4", "-parent", PARENT, seconds=min(bench.seconds, 5.0)))
    time.sleep(COOL_DOWN)
    return float(result["publishes_per_s"])


def _compare(bench: RuleBench, table: Table, name: str, gateway: Gateway, goal: float = KEEPS) -> None:
    """In turn with a gateway without rules."""
    plain = bench.gateway()
    pairs = [(_publishing(bench, gateway), _publishing(bench, plain)) for _ in range(bench.rounds)]
    kept = statistics.median(with_rule / without for with_rule, without in pairs)
    table.add(name, f"{kept:.2f}", f">= {goal}", kept >= goal, f"of the publishes a second without a rule, median of {bench.rounds} pairs")
    gateway.kill()
    plain.kill()


def down(bench: RuleBench, table: Table) -> None:
    """Nothing listens at the target's address."""
    gateway = bench.with_connection("kafka", f"127.0.0.1:{free_ports(1)[0]}")
    bench.create_rule(gateway, kind="outflow", topic=PARENT, backendTopic="nowhere")
    _compare(bench, table, "publishes, target down", gateway)


def slow(bench: RuleBench, table: Table) -> None:
    """Every answer of the target comes 200 ms late."""
    ports = bench.kafka.node.ports
    with late(ports.proxied, ports.proxy, 0.2):
        gateway = bench.with_connection("kafka", f"127.0.0.1:{ports.proxied}")
        bench.create_rule(gateway, kind="outflow", topic=PARENT, backendTopic=bench.topic("kafka"))
        _compare(bench, table, "publishes, target slow", gateway)


def stopped(bench: RuleBench, table: Table) -> None:
    """The target's process stands still."""
    gateway = bench.with_connection("kafka")
    rule = bench.create_rule(gateway, kind="outflow", topic=PARENT, backendTopic=bench.topic("kafka"))
    checked(bench.load(gateway.mqtt, "publish", "-pubs", "1", "-rate", "10", "-parent", PARENT, seconds=1.0))
    bench.until(gateway, rule, lambda status: status["state"] == "running")
    bench.kafka.freeze()
    try:
        _compare(bench, table, "publishes, target stopped", gateway)
    finally:
        bench.kafka.thaw()


def refusing(bench: RuleBench, table: Table) -> None:
    """The target refuses every other call."""
    with half_hearted(PARENT) as address:
        gateway = bench.with_connection("rocketmq", address)
        bench.create_rule(gateway, kind="outflow", topic=PARENT, backendTopic=PARENT)
        _compare(bench, table, "publishes, target refusing", gateway)


def many(bench: RuleBench, table: Table) -> None:
    """A hundred rules, of which one matches and 99 don't, against the one."""
    one, hundred = bench.with_connection("kafka"), bench.with_connection("kafka")
    for gateway in (one, hundred):
        bench.create_rule(gateway, kind="outflow", topic=PARENT, backendTopic=bench.topic("kafka"))
    other = bench.topic("kafka")
    for number in range(BARS):
        bench.create_rule(hundred, kind="outflow", topic=f"other{number}", backendTopic=other)
    flags = ("-qos", "1", "-pubs", "4", "-rate", "5000", "-parent", PARENT)
    costs: dict[Gateway, list[float]] = {one: [], hundred: []}
    for _ in range(bench.rounds):
        for gateway, found in costs.items():
            before = processor_seconds(gateway)
            result = checked(bench.load(gateway.mqtt, "publish", *flags, seconds=min(bench.seconds, 5.0)))
            found.append((processor_seconds(gateway) - before) / max(1, result["acked"]) * 1e6)
            time.sleep(COOL_DOWN)
    alone, among = (statistics.median(found) for found in costs.values())
    remark = f"{among:.1f} us against {alone:.1f} us of processor a publish"
    table.add("100 rules, 99 idle", f"{among / alone:.2f}", "<= 1.10", among <= 1.1 * alone, remark)


ALL: dict[str, Callable[[RuleBench, Table], None]] = {
    figure.__name__: figure for figure in (official, outflow, inflow, latency, down, slow, stopped, refusing, many)
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.rules", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mqload", type=Path, required=True, help="the load generator's program")
    parser.add_argument("--only", default="", metavar="NAME", help=f"one of {', '.join(ALL)}, or the start of some")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    chosen = {name: run for name, run in ALL.items() if name.startswith(arguments.only)}
    if not chosen or not os.access(arguments.mqload, os.X_OK):
        parser.error(f"--only {arguments.only}: no figure of that name" if not chosen else f"{arguments.mqload} is no program")
    table = Table()
    with tempfile.TemporaryDirectory() as scratch:
        bench = RuleBench(Path(scratch), arguments.mqload.resolve(), arguments.rounds, arguments.seconds)
        try:
            for name, run in chosen.items():
                try:
                    run(bench, table)
                except (Broken, TimeoutError) as broken:
                    table.add(name, "-", "a result", False, str(broken))
        finally:
            bench.close()
    table.summary()
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
