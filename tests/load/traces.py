"""What the trace costs: ``python -m tests.load.traces --mqload PATH``. Gateways with it on, sampled and off take the same load in turn."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.load.broker import Bench
from tests.load.switched import compare

CONFIGS = {
    "off": "[trace]\nenabled = false\n",
    "on": "",
    "sampled": "[trace]\nsample = 100\n",
    "2,000 a second": "[limits]\ntrace_rate = 2000\n",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.traces", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mqload", type=Path, required=True, help="the load generator's program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--modes", default="publish,pubsub", help="of those of tests.load.ratios")
    parser.add_argument("--configs", default="off,on,sampled", help=", ".join(CONFIGS))
    arguments = parser.parse_args()
    passed = True
    configs = {name: CONFIGS[name] for name in arguments.configs.split(",")}
    with tempfile.TemporaryDirectory() as scratch:
        for mode in arguments.modes.split(","):
            bench = Bench(Path(scratch) / mode, arguments.mqload.resolve(), arguments.rounds, arguments.seconds)
            try:
                passed &= compare(bench, mode, configs)
            finally:
                bench.close()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
