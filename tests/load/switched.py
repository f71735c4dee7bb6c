"""Gateways that differ in a setting take the same load in turn: what the setting costs.

Each round runs all of them, so that what the machine does meanwhile meets them alike; medians of ratios to the one that is named "off".
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from tests.load.broker import Bench, processor_seconds
from tests.load.figures import COOL_DOWN, RATIOS, checked, faults_of

GOAL = 0.9
"""Of the throughput without it."""


def compare(bench: Bench, mode: str, configs: Mapping[str, str]) -> bool:
    """``configs``: texts of settings by name, "off" among them. Prints a line for each; whether all reach the goal and lose nothing."""
    plan, names = RATIOS[mode], list(configs)
    gateways = {name: bench.gateway(config=config) for name, config in configs.items()}
    rates: dict[str, list[float]] = {name: [] for name in names}
    costs: dict[str, list[float]] = {name: [] for name in names}
    results = []
    for number in range(bench.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            before = processor_seconds(gateways[name])
            results.append(result := checked(bench.load(gateways[name].mqtt, plan.mode, "-qos", "1", *plan.flags)))
            rates[name].append(result[plan.figure])
            costs[name].append((processor_seconds(gateways[name]) - before) / max(1.0, result[plan.figure] * bench.seconds) * 1e6)
            time.sleep(COOL_DOWN)
    worst = 1.0
    for name in names:
        ratio = statistics.median(mine / off for mine, off in zip(rates[name], rates["off"], strict=True))
        worst = min(worst, ratio)
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        print(f"{mode:8} {name:15} {rate:>10,.0f} a second, {ratio:.3f} of off, {cost:.2f} us of processor each", flush=True)
    faults = faults_of(results)
    print(f"{mode:8} " + ", ".join(f"{key} {value}" for key, value in faults.items()), flush=True)
    return worst >= GOAL and not any(faults.values())
