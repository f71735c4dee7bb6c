"""Reads pytest's report and fails where a suite ran no test: a suite that is skipped whole must not look like one that passed."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

SUITES = ("unit", "contract", "conformance", "interop", "faults", "examples", "deployments", "support", "browser")


def ran(reports: Iterable[Path]) -> Counter[str]:
    """How many tests of each suite ran, the skipped ones left out."""
    counts: Counter[str] = Counter()
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
            parts = case.get("classname", "").split(".")
            if len(parts) > 1 and parts[0] == "tests" and case.find("skipped") is None:
                counts[parts[1]] += 1
    return counts


def main() -> int:
    counts = ran(map(Path, sys.argv[1:]))
    for suite in SUITES:
        print(f"{suite:<12} {counts[suite]:>6} tests ran")  # noqa: T201
    empty = [suite for suite in SUITES if not counts[suite]]
    if empty:
        print(f"scripts/test: no test ran in: {', '.join(empty)}", file=sys.stderr)  # noqa: T201
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main())
