"""Compose files, without an engine: what the specification allows, that everything they name is there, and what they keep to themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import compose_spec
import pytest

from tests.deployments.shapes import COMPOSE, SECRETS, SHAPES, Shape
from tests.support.gateway import ROOT

PINNED = re.compile(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?")
MQTTS = "8883:8883"
FRONT_DOORS = {"embedded": "gateway-1", "kafka": "balancer", "rocketmq": "balancer"}
SECRET_WORDS = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY|PRIVATE")


def validate(text: str) -> None:
    compose_spec.PyOptions(apply_merge=True).from_yaml(text).validate()


def test_the_specification_allows_it(shape: Shape) -> None:
    validate(shape.text)


@pytest.mark.parametrize(
    "wrong", ["    imagee: x:1\n", "    healthcheck: {tests: [CMD, x]}\n", "    secrets: [unknown]\n", "    networks: [unknown]\n"]
)
def test_the_validator_refuses_what_the_specification_does_not_know(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"imagee|tests|unknown"):
        validate(f"services:\n  one:\n    image: x:1\n{wrong}")


def test_every_file_that_is_named_is_there(shape: Shape) -> None:
    for service in shape.services.values():
        assert all(path.is_file() for path, _ in shape.mounted(service))
    for name, secret in shape.file["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
        assert (shape.secrets / name).is_file()
    for gateway in shape.gateways.values():
        context = (COMPOSE / shape.name / gateway["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / gateway["build"]["dockerfile"]).is_file()


def test_images_are_pinned_and_the_same_everywhere() -> None:
    tags: dict[str, set[str]] = {}
    for name in SHAPES:
        for service in Shape(COMPOSE, name).services.values():
            assert PINNED.fullmatch(service["image"]), service["image"]
            repository, _, tag = service["image"].partition(":")
            tags.setdefault(repository, set()).add(tag)
    assert all(len(found) == 1 for found in tags.values()), tags


def test_one_door_is_open_to_others(shape: Shape) -> None:
    """MQTT over TLS. What else is published is for this machine alone, and brokers, databases and gateways behind the balancer are not."""
    for name, service in shape.services.items():
        to_others = [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")]
        assert to_others == ([MQTTS] if name == FRONT_DOORS[shape.name] else [])
        assert not service.get("ports") or name in (FRONT_DOORS[shape.name], "grafana")
        assert "network_mode" not in service or service["network_mode"] == "none"


def test_brokers_and_the_database_are_on_networks_without_a_way_out(shape: Shape) -> None:
    for name, service in shape.services.items():
        if name.startswith(("kafka", "broker", "namesrv", "acls", "postgres", "prometheus")):
            assert all(shape.file["networks"][network].get("internal") for network in service["networks"]), name


def test_secrets_are_files_and_each_service_has_those_that_it_uses(shape: Shape) -> None:
    used: set[str] = set()
    for name, service in shape.services.items():
        given = set(service.get("secrets", ()))
        assert given == shape.mentions(service), name
        used |= given
        for variable, value in service.get("environment", {}).items():
            if SECRET_WORDS.search(variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert str(value).startswith(SECRETS), f"{name}: {variable}"
    assert used == set(shape.file["secrets"])


def test_no_secret_is_in_a_file_that_is_committed(shape: Shape) -> None:
    values = {path.read_text("utf-8").strip() for path in shape.secrets.glob("*.password")}
    assert values
    committed = [path.read_text("utf-8") for path in shape.compose.rglob("*") if path.is_file() and path.parent.name != "secrets"]
    assert not [value for value in values for text in committed if value in text]
    assert "/compose/*/secrets/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_containers_may_do_no_more_than_they_need(shape: Shape) -> None:
    for name, service in shape.services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("cap_add", []) == (["CHOWN"] if name == "folders" else []), name
        assert not service.get("privileged"), name
    assert all(gateway["read_only"] for gateway in shape.gateways.values())


def test_what_is_waited_for_can_come(shape: Shape) -> None:
    """Healthy needs a health check, our image has one; who is waited for until it has ended isn't started again."""
    for service in shape.services.values():
        for name, wait in service.get("depends_on", {}).items():
            other = shape.services[name]
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in other or name in shape.gateways
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert other["restart"] == "no"


def test_what_is_kept_is_in_volumes_of_its_own(shape: Shape) -> None:
    taken: dict[str, str] = {}
    for name, service in shape.services.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if not source.startswith(".") and name != "folders":
                assert source not in taken, f"{name} and {taken[source]} share {source}"
                taken[source] = name
    assert set(taken) == set(shape.file["volumes"])
    assert set(shape.gateways) <= set(taken.values())


def test_gateways_differ_by_their_node_alone(shape: Shape) -> None:
    def rest(gateway: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in gateway.items() if key not in ("environment", "volumes", "depends_on", "ports")}

    assert len({gateway["environment"]["SLUICEWAY_NODE_ID"] for gateway in shape.gateways.values()}) == len(shape.gateways)
    first, *others = (rest(gateway) for gateway in shape.gateways.values())
    assert all(other == first for other in others)
    assert len(shape.gateways) == (1 if shape.name == "embedded" else 3)


def test_dashboard_and_rules_are_mounted_where_they_are_looked_for(shape: Shape) -> None:
    grafana = {target: path for path, target in shape.mounted(shape.services["grafana"])}
    provider = grafana["/etc/grafana/provisioning/dashboards/sluiceway.yml"].read_text("utf-8")
    (folder,) = re.findall(r"path: (\S+)", provider)
    assert Path(folder) / "sluiceway.json" in map(Path, grafana)
    prometheus = {target: path for path, target in shape.mounted(shape.services["prometheus"])}
    (rules,) = re.findall(r"rule_files: \[(\S+)\]", prometheus["/etc/prometheus/prometheus.yml"].read_text("utf-8"))
    assert rules in prometheus
