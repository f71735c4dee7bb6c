"""Renders the chart with Helm's own code, in a process of its own: that code is Go's, whose runtime stays in the process that loads it.

Standard input: a JSON list of values. Standard output: for each a JSON object, the rendered text by file, or `error` alone.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import helm_python

RELEASE, NAMESPACE = "demo", "mqtt"


def rendered(chart: Any, values: dict[str, Any]) -> dict[str, str]:
    try:
        chart.validate_schema(values)
        files: dict[str, str] = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    except helm_python.HelmError as error:
        return {"error": str(error)}
    return files


def main() -> int:
    path = sys.argv[1]
    with helm_python.Chart.load(path) as chart:
        json.dump([rendered(chart, values) for values in json.load(sys.stdin)], sys.stdout)
    findings = helm_python.lint(path, {"secrets": {"tls": "tls", "seal": "seal"}})
    problems = [finding for finding in findings["messages"] if finding["severity"] > 1] + findings["errors"]
    print(problems, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
