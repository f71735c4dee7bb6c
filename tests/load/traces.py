"""What the trace costs: ``python -m tests.load.traces --mqload PATH``. Gateways with it on, sampled and off take the same load in turn.

Each round runs all of them, so that what the machine does meanwhile meets them alike; medians of ratios to the one that is off.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.load.broker import Bench, processor_seconds
from tests.load.figures import COOL_DOWN, RATIOS, checked

CONFIGS = {
    "off": "[trace]\nenabled = false\n",
    "on": "",
    "sampled": "[trace]\nsample = 100\n",
    "2,000 a second": "[limits]\ntrace_rate = 2000\n",
}
GOAL = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.traces", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mqload", type=Path, required=True, help="the load generator's program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--modes", default="publish,pubsub", help="of those of tests.load.ratios")
    parser.add_argument("--configs", default="off,on,sampled", help=", ".join(CONFIGS))
    arguments = parser.parse_args()
    passed = True
    names = arguments.configs.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        for mode in arguments.modes.split(","):
            bench = Bench(Path(scratch) / mode, arguments.mqload.resolve(), arguments.rounds, arguments.seconds)
            try:
                passed &= compare(bench, mode, names)
            finally:
                bench.close()
    return 0 if passed else 1


def compare(bench: Bench, mode: str, names: list[str]) -> bool:
    plan, gateways = RATIOS[mode], {name: bench.gateway(config=CONFIGS[name]) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    costs: dict[str, list[float]] = {name: [] for name in names}
    for number in range(bench.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            before = processor_seconds(gateways[name])
            result = checked(bench.load(gateways[name].mqtt, plan.mode, "-qos", "1", *plan.flags))
            rates[name].append(result[plan.figure])
            costs[name].append((processor_seconds(gateways[name]) - before) / max(1.0, result[plan.figure] * bench.seconds) * 1e6)
            time.sleep(COOL_DOWN)
    worst = 1.0
    for name in names:
        ratio = statistics.median(mine / off for mine, off in zip(rates[name], rates["off"], strict=True))
        worst = min(worst, ratio)
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        print(f"{mode:8} {name:15} {rate:>10,.0f} a second, {ratio:.3f} of off, {cost:.2f} us of processor each", flush=True)
    return worst >= GOAL


if __name__ == "__main__":
    sys.exit(main())
