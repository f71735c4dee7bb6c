"""The gateways' settings of each deployment pass the program's own check, and say what the deployment promises."""

from __future__ import annotations

import os
import re
import tomllib
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.settings.load import load
from schemas.settings import Address, Settings
from tests.deployments.shapes import Shape
from tests.support.gateway import clean_environment


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)


def settings_of(shape: Shape, folder: Path) -> list[Settings]:
    environments = [gateway["environment"] for gateway in shape.gateways.values()]
    return [load({}, environment, shape.settings(folder)) for environment in environments]


def test_the_program_takes_them(shape: Shape, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(shape.settings(tmp_path))]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == "OK\n"


def test_devices_come_by_tls_and_nobody_without_a_login(shape: Shape, tmp_path: Path) -> None:
    for settings in settings_of(shape, tmp_path):
        assert settings.mqtts == (Address("0.0.0.0", 8883),)
        assert not (settings.mqtt or settings.ws or settings.wss)
        assert settings.tls.http
        assert not settings.anonymous
        assert not settings.allow_plaintext_login
        assert settings.keys.seal_file is not None
        assert settings.data not in settings.keys.seal_file.parents


def test_nothing_acknowledged_may_be_lost(shape: Shape, tmp_path: Path) -> None:
    for settings in settings_of(shape, tmp_path):
        assert settings.log.durability == "checked"
        assert settings.log.kind == shape.name
        assert settings.log.replication == 3


def test_brokers_and_the_database_are_reached_by_tls_and_with_a_login(shape: Shape, tmp_path: Path) -> None:
    for settings in settings_of(shape, tmp_path):
        assert all(connection.tls and connection.ca and connection.user and connection.password for connection in settings.connections)
        if shape.name == "embedded":
            assert not settings.store.url
        else:
            assert "sslmode=verify-full" in settings.store.url
            assert settings.store.password_file is not None


def test_several_gateways_are_many_nodes(shape: Shape, tmp_path: Path) -> None:
    found = settings_of(shape, tmp_path)
    assert len({settings.node.id for settings in found}) == len(found)
    assert all(settings.node.many == (len(found) > 1) for settings in found)


def test_the_logs_principal_is_not_the_rules(on_kafka: Shape, tmp_path: Path) -> None:
    (settings, *_) = settings_of(on_kafka, tmp_path)
    of_the_log = next(connection for connection in settings.connections if connection.name == settings.log.connection)
    others = [connection for connection in settings.connections if connection is not of_the_log]
    assert others
    assert not of_the_log.allow_outflow
    assert not of_the_log.allow_inflow
    assert all(connection.user != of_the_log.user for connection in others)
    named = dict(line.split() for line in (on_kafka.secrets / "kafka.users").read_text("utf-8").splitlines())
    passwords = {connection.user: connection.password for connection in settings.connections}
    assert {user: password.reveal() for user, password in passwords.items() if password is not None} == named


def test_kafkas_rights_are_those_that_the_settings_need(on_kafka: Shape, tmp_path: Path) -> None:
    (settings, *_) = settings_of(on_kafka, tmp_path)
    rights = re.findall(r"^allow (\S+) --(topic|group) (\S+) (.*)$", (on_kafka.folder / "acls.sh").read_text("utf-8"), re.MULTILINE)
    assert {right[0] for right in rights} == {connection.user for connection in settings.connections}
    prefixes = {user: [prefix for who, kind, prefix, _ in rights if who == user and kind == "topic"] for user, *_ in rights}
    assert prefixes["sluiceway-log"] == [settings.log.prefix]
    patterns = next([*c.allow_outflow, *c.allow_inflow] for c in settings.connections if c.user == "sluiceway-rules")
    assert [f"{prefix}*" for prefix in prefixes["sluiceway-rules"]] == patterns


def test_headers_are_demanded_from_the_load_balancers_network(on_kafka: Shape, tmp_path: Path) -> None:
    (front,) = on_kafka.file["networks"]["front"]["ipam"]["config"]
    assert set(on_kafka.services["balancer"]["networks"]) == {"front"}
    for settings in settings_of(on_kafka, tmp_path):
        (proxy,) = settings.proxy
        assert proxy.listener in settings.mqtts
        assert proxy.networks == (ip_network(front["subnet"]),)
    assert {name for name, service in on_kafka.services.items() if "front" in service.get("networks", ())} == {"balancer", *on_kafka.gateways}


def test_every_host_that_is_named_can_be_reached(shape: Shape) -> None:
    """It is a service, and on a network with who names it."""
    for name, service in shape.services.items():
        for path, _ in shape.mounted(service):
            for host in hosts(path):
                shared = set(shape.services[host]["networks"]) & set(service["networks"])
                assert shared, f"{name} can't reach {host}, which {path.name} names"


def hosts(path: Path) -> set[str]:
    text = path.read_text("utf-8")
    if path.suffix == ".toml":
        settings = tomllib.loads(text)
        addresses = [connection["address"] for connection in settings.get("connections", {}).values()]
        addresses += [settings["store"]["url"].partition("@")[2]] if "store" in settings else []
    elif path.name in ("prometheus.yml", "haproxy.cfg", "datasource.yml"):
        addresses = re.findall(r"(?:[\"/ ])([a-z]+[a-z0-9-]*:\d{4})", text)
        assert addresses, path
    else:
        addresses = re.findall(r"(?:@|=|,|//)((?:kafka-|namesrv)[0-9]*:\d{4})", text)
    return {address.rpartition(":")[0].partition(":")[0] for listed in addresses for address in listed.split(",")}
