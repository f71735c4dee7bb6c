"""Measures the gateway against mosquitto, and its own limits: ``python -m tests.load.ratios --mqload PATH [--only NAME]``.

Each comparison runs both brokers in turn with the same mqload flags, five rounds of five seconds, and compares medians. The
gateway runs with its defaults (fsync, authorisation, counters and metrics on); mosquitto without persistence and limits.
mqload is a load generator that prints one JSON object a run; CI does not need it. Exits 1 when a figure misses its goal.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.load import figures
from tests.load.broker import Bench
from tests.load.table import Table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.ratios", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mqload", type=Path, required=True, help="the load generator's program")
    parser.add_argument("--only", default="", metavar="NAME", help=f"one of {', '.join(figures.ALL)}, or the start of some")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    chosen: dict[str, Callable[[Bench, Table], None]] = {name: run for name, run in figures.ALL.items() if name.startswith(arguments.only)}
    if not chosen:
        parser.error(f"--only {arguments.only}: no figure of that name")
    if not os.access(arguments.mqload, os.X_OK):
        parser.error(f"{arguments.mqload} is no program")
    table = Table()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {arguments.rounds} rounds of {arguments.seconds} s", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, run in chosen.items():
            bench = Bench(Path(scratch) / name, arguments.mqload.resolve(), arguments.rounds, arguments.seconds)
            try:
                run(bench, table)
            except figures.Broken as broken:
                table.add(name, "-", "a result", False, str(broken))
            finally:
                bench.close()
    table.summary()
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
