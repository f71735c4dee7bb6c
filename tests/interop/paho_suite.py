"""Runs the interoperability suite of Eclipse Paho against the gateway: ``python -m tests.interop.paho_suite CHECKOUT``.

The suite stays outside this repository (its licence is the EPL); CHECKOUT is the folder of eclipse/paho.mqtt.testing. Each test
runs in a process of its own with a time limit, since its clients wait for ever, on a gateway with paho-profile.toml and a
fresh folder. The suite's own options clash with unittest's, so its module globals are set in their place.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support import postgresql
from tests.support.brokers.fixtures import servers
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import V5, RocketMQ
from tests.support.gateway import Endpoint, Gateway
from tests.support.spread import Spread

PROFILE = Path(__file__).parent / "paho-profile.toml"
FILES = ("client_test.py", "client_test5.py")
LIMIT = 45.0
LIMITS = {"test_will_delay": 120.0}
"""Seconds of a test; the suite's own waits are long."""
EXCLUDED = {"test_flow_control2": "it blocks when it runs in a process of its own, whatever the broker"}
RUNNER = """
import sys, unittest
sys.path.insert(0, ".")
sys.argv = [{module!r}]
import {module} as suite
prefix = {prefix!r}
suite.host, suite.port = {host!r}, {port}
suite.topic_prefix = prefix
suite.topics = [prefix + topic for topic in ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")]
suite.wildtopics = [prefix + topic for topic in ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")]
suite.nosubscribe_topics = ("test/nosubscribe",)
if hasattr(suite, "setData"):
    suite.setData = lambda: None
unittest.main(module=suite, argv=["suite", {test!r}], verbosity=0)
"""
PREFIXES = {"client_test.py": "", "client_test5.py": "client_test5/"}


def tests_of(file: Path) -> Iterator[str]:
    """Names as unittest takes them, read from the source."""
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name.startswith("test"):
                    yield f"{node.name}.{item.name}"


def run_test(folder: Path, file: str, test: str, broker: Endpoint) -> tuple[bool, str]:
    """Whether it passed, and what it said."""
    script = RUNNER.format(module=file.removesuffix(".py"), prefix=PREFIXES[file], host=broker.host, port=broker.port, test=test)
    limit = LIMITS.get(test.partition(".")[2], LIMIT)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no end within {limit:.0f} s"
    return done.returncode == 0, done.stdout + done.stderr


def run_suite(folder: Path, broker: Endpoint, only: str) -> list[str]:
    """One run; the names of the tests that failed."""
    failed = []
    for file in FILES:
        for test in tests_of(folder / file):
            name = f"{file}:{test}"
            if test.partition(".")[2] in EXCLUDED or only not in name:
                continue
            start = time.monotonic()
            passed, said = run_test(folder, file, test, broker)
            print(f"{'pass' if passed else 'FAIL'} {time.monotonic() - start:6.1f} s  {name}", flush=True)
            if not passed:
                failed.append(name)
                print("\n".join(f"    {line}" for line in said.strip().splitlines()[-25:]), flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/paho", description="Runs the Eclipse Paho interoperability suite against the gateway.")
    parser.add_argument("checkout", type=Path, help="folder of eclipse/paho.mqtt.testing")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", metavar="TEXT", help="tests whose name contains TEXT")
    parser.add_argument("--three", choices=("kafka", "rocketmq"), help="three gateways, each connection to the next of them, with the log there")
    parser.add_argument("--broker", type=Endpoint.parse, metavar="HOST:PORT", help="a broker that runs already, in the gateway's place")
    arguments = parser.parse_args()
    folder = arguments.checkout / "interoperability"
    if not (folder / FILES[0]).is_file():
        parser.error(f"{folder / FILES[0]} is not there: CHECKOUT is the folder of eclipse/paho.mqtt.testing")
    failed = 0
    for number in range(1, arguments.runs + 1):
        if arguments.broker:
            names = run_suite(folder, arguments.broker, arguments.only)
        else:
            names = run_on_three(folder, arguments.only, arguments.three) if arguments.three else run_on_gateway(folder, arguments.only)
        failed += len(names)
        print(f"run {number}: {len(names)} failed {', '.join(names)}".rstrip(), flush=True)
    return 1 if failed else 0


def run_on_gateway(folder: Path, only: str) -> list[str]:
    """One run on a gateway of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        gateway = Gateway(Path(scratch), config=PROFILE.read_text("utf-8"), anonymous=False).start()
        try:
            return run_suite(folder, gateway.mqtt, only)
        finally:
            if not gateway.alive:
                print(gateway.tail())
            gateway.kill()


def run_on_three(folder: Path, only: str, kind: str) -> list[str]:
    """One run on three gateways of its own, with the log on a broker of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        broker = (Kafka(place / "kafka") if kind == "kafka" else RocketMQ(place / "rocketmq", V5)).start()
        spread = Spread(broker, place / "spread", config=PROFILE.read_text("utf-8"), anonymous=False)
        try:
            return run_suite(folder, spread.start().mqtt, only)
        finally:
            if not spread.alive:
                print(spread.tail())
            spread.kill()
            for server in servers(broker):
                server.kill()
            postgresql.pytest_sessionfinish()


if __name__ == "__main__":
    sys.exit(main())
