"""The figures and their goals, one function each: ratios to mosquitto, latency, cost of MQTT 5, connections, memory, draining."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.load.broker import Bench, Result, fdatasync_ms, key_flags, memory, processor_seconds
from tests.load.bystanders import subscribed
from tests.load.table import Table
from tests.support.gateway import Gateway

MIB = 1024 * 1024
COOL_DOWN = 0.5
"""Seconds between two runs, for the one before to be quite over."""


class Broken(Exception):
    """A run that gave no figures."""


class Ratio(NamedTuple):
    """``theirs`` None: the same mode and flags for mosquitto."""

    mode: str
    flags: tuple[str, ...]
    figure: str
    goal: float
    theirs: tuple[str, tuple[str, ...]] | None = None


PUBSUB = ("-pubs", "4", "-subs", "4")
RATIOS = {
    "publish": Ratio("publish", ("-pubs", "4"), "publishes_per_s", 1.0),
    "pubsub": Ratio("pubsub", PUBSUB, "deliveries_per_s", 1.5),
    "fanout": Ratio("fanout", ("-pubs", "1", "-subs", "50"), "deliveries_per_s", 4.5),
    "fanin": Ratio("fanin", ("-pubs", "50"), "deliveries_per_s", 1.3),
    "p2p": Ratio("p2p", ("-pubs", "4"), "deliveries_per_s", 1.5, theirs=("pubsub", PUBSUB)),
}
FAULTS = ("missing", "duplicates", "gaps")


def checked(result: Result) -> Result:
    if "error" in result:
        raise Broken(result["error"])
    return result


def faults_of(results: list[Result]) -> dict[str, int]:
    return {name: sum(abs(result[name]) for result in results) for name in FAULTS}


def ratio(name: str) -> Callable[[Bench, Table], None]:
    plan = RATIOS[name]

    def run(bench: Bench, table: Table) -> None:
        ours, theirs = bench.gateway(), bench.mosquitto()
        their_mode, their_flags = plan.theirs or (plan.mode, plan.flags)
        our_results, their_results = [], []
        for number in range(bench.rounds):
            their_results.append({plan.figure: 0.0} | checked(bench.load(theirs.mqtt, their_mode, "-qos", "1", *their_flags)))
            time.sleep(COOL_DOWN)
            our_results.append({plan.figure: 0.0} | checked(bench.load(ours.mqtt, plan.mode, "-qos", "1", *plan.flags)))
            time.sleep(COOL_DOWN)
            table.note(f"{name} {number + 1}: {our_results[-1][plan.figure]:,.0f} against {their_results[-1][plan.figure]:,.0f}")
        our_median = statistics.median(result[plan.figure] for result in our_results)
        their_median = statistics.median(result[plan.figure] for result in their_results)
        faults = faults_of(our_results)
        reached = our_median / their_median
        remark = f"{our_median:,.0f} against {their_median:,.0f} a second; " + ", ".join(f"{key} {value}" for key, value in faults.items())
        table.add(name, f"{reached:.2f}", f">= {plan.goal}", reached >= plan.goal and not any(faults.values()), remark)

    return run


def latency(bench: Bench, table: Table) -> None:
    """10 publishers of 100 messages a second: send to receipt, and to PUBACK, against fdatasync measured meanwhile."""
    ours = bench.gateway()
    flags = ("-qos", "1", "-pubs", "10", "-subs", "10", "-rate", "100")
    checked(bench.load(ours.mqtt, "pubsub", *flags, seconds=1.0))
    rows = []
    for _ in range(bench.rounds):
        disk: list[tuple[float, float]] = []
        probe = threading.Thread(target=lambda found=disk: found.append(fdatasync_ms(bench.folder, bench.seconds)))
        probe.start()
        result = checked(bench.load(ours.mqtt, "pubsub", *flags))
        probe.join()
        rows.append((result["latency_ms"]["p50"], result["latency_ms"]["p99"], *disk[0], result["ack_ms"]["p50"], result["ack_ms"]["p99"]))
    p50, p99, sync50, sync99, ack50, ack99 = (statistics.median(column) for column in zip(*rows, strict=True))
    goal50, goal99 = 1 + 3 * sync50, 10 + 4 * sync99
    table.add("latency p50", f"{p50:.2f} ms", f"<= {goal50:.2f} ms", p50 <= goal50, f"fdatasync {sync50:.2f} ms, PUBACK {ack50:.2f} ms")
    table.add("latency p99", f"{p99:.2f} ms", f"<= {goal99:.2f} ms", p99 <= goal99, f"fdatasync {sync99:.2f} ms, PUBACK {ack99:.2f} ms")


def version_5(bench: Bench, table: Table) -> None:
    """Processor time of the gateway per delivery, MQTT 5.0 against 3.1.1, at the same load in turn."""
    ours = bench.gateway()
    costs: dict[str, list[float]] = {"3.1.1": [], "5.0": []}
    results = []
    for _ in range(bench.rounds):
        for version, flags in (("3.1.1", ()), ("5.0", ("-v5",))):
            before = processor_seconds(ours)
            results.append(checked(bench.load(ours.mqtt, "pubsub", "-qos", "1", *PUBSUB, *flags)))
            costs[version].append((processor_seconds(ours) - before) / max(1, results[-1]["delivered"]) * 1e6)
            time.sleep(COOL_DOWN)
    three, five = (statistics.median(costs[version]) for version in ("3.1.1", "5.0"))
    faults = faults_of(results)
    remark = f"{five:.2f} us against {three:.2f} us of processor a delivery; " + ", ".join(f"{key} {value}" for key, value in faults.items())
    table.add("MQTT 5 cost", f"{five / three:.2f}", "<= 1.15", five <= 1.15 * three and not any(faults.values()), remark)


def idle(bench: Bench, table: Table) -> None:
    """10,000 idle connections: resident memory of each."""
    ours = bench.gateway()
    checked(bench.load(ours.mqtt, "connect", "-conns", "200", seconds=0.5))
    time.sleep(1.0)
    before = memory(ours)
    with bench.holding(ours.mqtt, 10_000) as said:
        each = (memory(ours) - before) / 10_000
    table.add("idle connection", f"{each / 1024:.2f} KiB", "<= 4 KiB", '"refused":0' in said and each <= 4096, said.strip())


def connects(bench: Bench, table: Table) -> None:
    """Connections opened in a second, anonymous and with a signature."""
    for name, anonymous, goal in (("connects anonymous", True, 5000), ("connects signature", False, 3000)):
        ours = bench.gateway(anonymous=anonymous)
        opened(bench, table, name, ours, [] if anonymous else key_flags(ours.create_key()), 5000, goal)


def opened(bench: Bench, table: Table, name: str, ours: Gateway, flags: Sequence[str], count: int, goal: int) -> None:
    """How many connections a second are opened of ``count`` in each round; ends the gateway."""
    runs = []
    for _ in range(bench.rounds):
        runs.append(checked(bench.load(ours.mqtt, "connect", "-conns", str(count), *flags, seconds=0.2)))
        time.sleep(COOL_DOWN * count / 5000)  # as many disconnects are folded
    rate = statistics.median(run["connects_per_s"] for run in runs)
    refused = sum(run["refused"] for run in runs)
    table.add(name, f"{rate:,.0f} /s", f">= {goal:,}", rate >= goal and not refused, f"{count:,} each time, refused {refused}")
    ours.kill()


def steady(bench: Bench, table: Table) -> None:
    """Memory after each of three identical loads."""
    ours = bench.gateway()
    after = []
    for _ in range(3):
        checked(bench.load(ours.mqtt, "pubsub", "-qos", "1", *PUBSUB))
        after.append(_settled_memory(ours))
    grown = max(after[1:]) / after[0]
    table.add("three loads, memory", f"{grown:.2f}", "<= 1.10", grown <= 1.10, ", ".join(f"{size / MIB:.1f} MiB" for size in after))


def offline(bench: Bench, table: Table) -> None:
    """100,000 stored messages for one client come back in order."""
    ours = bench.gateway()
    checked(bench.load(ours.mqtt, "pubsub", "-qos", "1", "-pubs", "1", "-subs", "1", seconds=0.5))
    idle_memory = _settled_memory(ours)
    peak = [idle_memory]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak.append(memory(ours))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = checked(bench.load(ours.mqtt, "offline", "-pubs", "1", "-subs", "1", "-qos", "1", "-count", "100000", "-drain", "60", seconds=120))
    finally:
        over.set()
        watcher.join()
    faults = faults_of([result])
    rate, above = result.get("deliveries_per_s", 0.0), max(peak) - idle_memory
    remark = f"of {result['expected']:,} delivered {result['delivered']:,}; " + ", ".join(f"{key} {value}" for key, value in faults.items())
    complete = result["expected"] == 100_000 and not any(faults.values())
    table.add("offline drain", f"{rate:,.0f} /s", ">= 10,000", rate >= 10_000 and complete, remark)
    table.add("offline memory", f"{above / MIB:.1f} MiB", "<= 16 MiB", above <= 16 * MIB, f"above {idle_memory / MIB:.1f} MiB idle, at its peak")


def subscriptions(bench: Bench, table: Table) -> None:
    """Processor time of a delivery among 100 and among 100,000 subscriptions of other topics."""
    costs = []
    for clients, filters in ((1, 100), (100, 1000)):
        ours = bench.gateway()
        with subscribed(ours, clients, filters):
            time.sleep(1.0)
            runs = []
            for _ in range(bench.rounds):
                before = processor_seconds(ours)
                result = checked(bench.load(ours.mqtt, "pubsub", "-qos", "1", *PUBSUB))
                runs.append((processor_seconds(ours) - before) / max(1, result["delivered"]) * 1e6)
            costs.append(statistics.median(runs))
        ours.kill()
    grown = costs[1] / costs[0]
    table.add("among 100,000 filters", f"{grown:.2f}", "< 1.5", grown < 1.5, f"{costs[1]:.2f} us against {costs[0]:.2f} us of processor a delivery")


def _settled_memory(gateway: Gateway) -> int:
    """What is left once the load is over: the least of three seconds."""
    least = memory(gateway)
    for _ in range(6):
        time.sleep(0.5)
        least = min(least, memory(gateway))
    return least


ALL: dict[str, Callable[[Bench, Table], None]] = {
    **{name: ratio(name) for name in RATIOS},
    "latency": latency,
    "version5": version_5,
    "idle": idle,
    "connects": connects,
    "steady": steady,
    "offline": offline,
    "subscriptions": subscriptions,
}
