"""Alerts and the dashboard: their queries parse, and ask for metrics and labels that a gateway's /metrics has."""

from __future__ import annotations

import json
import re
import ssl
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.metrics import Gauges, MetricsPage
from gateway.counters import Counters
from gateway.rules.info import RuleStatus
from tests.deployments.shapes import COMPOSE, Shape
from tests.support.gateway import Gateway

MONITORING = COMPOSE / "monitoring"
OF_PROMETHEUS = {"up"}
TARGET_LABELS = {"instance", "job"}
"""Prometheus' own: which gateway was asked."""
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((MONITORING / "sluiceway.json").read_text("utf-8"))  # type: ignore[no-any-return]


def queries() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [*(rule["expr"] for rule in alerts()), *panels]


def parsed(query: str) -> Any:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    assert "$" not in query, query
    return promql_parser.parse(query)


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics of a query, and the labels by which it chooses or groups."""
    found: list[Any] = []
    grouped: set[str] = set()

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)
        return True

    promql_parser.walk(parsed(query), visit)
    assert found, query
    for selector in found:
        yield selector.name, {matcher.name for matcher in selector.matchers.matchers} | grouped


def page() -> str:
    """The page of a gateway with a rule, on which each counter by reason has one."""
    counters = Counters()
    for reasons in (value for name in dir(counters) if isinstance(value := getattr(counters, name), dict)):
        reasons["reason"] = 1
    rules = [("rule", "outflow", RuleStatus(state="running"))]
    made = MetricsPage(counters, Gauges, lambda: rules, lambda: {"gateway": 1}, version="1", preset="standard")
    return made.page().decode()


def exported(text: str) -> dict[str, set[str]]:
    labels: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels[sample.name] |= sample.labels.keys()
    return labels


@pytest.mark.slow
def test_each_metric_is_on_the_page_of_a_running_gateway(start_gateway: Callable[..., Gateway], embedded: Shape, tmp_path: Path) -> None:
    gateway = start_gateway(anonymous=False, config=embedded.settings(tmp_path).read_text("utf-8"), listen=("mqtts",))
    url = f"https://localhost:{gateway.endpoints['https'].port}/metrics"
    trusted = ssl.create_default_context(cafile=embedded.secrets / "ca.crt")
    with urllib.request.urlopen(url, timeout=10, context=trusted) as answer:
        text = answer.read().decode()
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    asked = {name for query in queries() for name, _ in selectors(query)} - OF_PROMETHEUS
    assert asked <= names
    assert {name for name in names if name.startswith("sluiceway_")} == {name for name in exported(page()) if name.startswith("sluiceway_")}


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_labels_are_those_that_the_metrics_have(query: str) -> None:
    labels = exported(page())
    for name, asked in selectors(query):
        assert name in OF_PROMETHEUS or asked <= labels[name] | TARGET_LABELS, f"{name} has no {asked - labels[name]}"


def test_counters_are_asked_for_rates_and_gauges_for_values() -> None:
    for query in queries():
        for name, _ in selectors(query):
            rated = re.search(rf"(rate|increase)\({name}\b", query) is not None
            assert rated == name.endswith("_total"), query


def test_alerts_say_what_is_wrong_with_which_gateway_or_rule() -> None:
    labels = exported(page())
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert used
        for name, _ in selectors(rule["expr"]):
            assert used <= labels[name] | TARGET_LABELS, rule["alert"]


def test_panels_have_places_of_their_own_and_the_provisioned_source() -> None:
    source = yaml.safe_load((MONITORING / "datasource.yml").read_text("utf-8"))["datasources"][0]
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}


def test_legends_name_labels_that_the_query_leaves() -> None:
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            grouped = re.search(r"by \(([^)]+)\)", target["expr"])
            left = set(grouped[1].split(", ")) if grouped else TARGET_LABELS
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= left, target["expr"]


def test_prometheus_asks_each_gateway_by_a_name_of_its_certificate(shape: Shape) -> None:
    (job,) = yaml.safe_load((shape.folder / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert job["job_name"] == "sluiceway"
    assert job["scheme"] == "https"
    (targets,) = job["static_configs"]
    assert targets["targets"] == [f"{name}:8080" for name in shape.gateways]
