"""compose/secrets: what it makes fits together, belongs to who reads it, and stays as it is."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from gateway.auth.seal import read_keys
from tests.deployments.shapes import COMPOSE, DOOR, Shape, copied, make_secrets

READERS = {"gateway": 10001, "postgres": 999, "kafka": 1000, "rocketmq": 3000, "grafana": 472}


def certificate(shape: Shape, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((shape.secrets / f"{name}.crt").read_bytes())


def names(found: x509.Certificate) -> list[str]:
    return found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)


def test_servers_have_certificates_for_the_names_by_which_they_are_called(shape: Shape) -> None:
    called = {"gateway": {*shape.gateways, "localhost", "mqtt.example.org"}}
    if shape.name != "embedded":
        called["postgres"] = {"postgres"}
    if shape.name == "kafka":
        called |= {name: {name} for name in ("kafka-1", "kafka-2", "kafka-3")}
    if shape.name == "rocketmq":
        called["rocketmq"] = {"namesrv", *(name for name in shape.services if name.startswith("broker-"))}
    authority = certificate(shape, "ca")
    for name, expected in called.items():
        found = certificate(shape, name)
        found.verify_directly_issued_by(authority)
        assert set(names(found)) == expected
    assert {path.stem for path in shape.secrets.glob("*.crt")} == {"ca", *called}


def test_only_the_authoritys_certificate_may_be_read_by_everybody(shape: Shape) -> None:
    for path in shape.secrets.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == {"ca.crt": 0o444, "ca.key": 0o600}.get(path.name, 0o400), path.name
    assert stat.S_IMODE(shape.secrets.stat().st_mode) == 0o700


def test_files_belong_to_who_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root they are given away; without, the commands that do it are printed. A stand-in for chown notes who gets what."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, lines in {"id": "echo 0", "chown": f'echo "$@" >>{tmp_path}/given'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{lines}\n", "utf-8")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    shape = copied(tmp_path, "kafka", DOOR)
    owners = {}
    for line in (tmp_path / "given").read_text("utf-8").splitlines():
        owner, *files = line.split()
        owners |= dict.fromkeys(files, int(owner.partition(":")[0]))
    for name, service in shape.services.items():
        reader = next((READERS[image] for image in ("postgres", "kafka", "grafana") if image in service["image"]), READERS["gateway"])
        for secret in service.get("secrets", ()):
            assert secret == "ca.crt" or owners[secret] == reader, f"{name} can't read {secret}"
    (tools / "id").write_text("#!/bin/sh\necho 1000\n", "utf-8")
    (shape.secrets / "seal.key").unlink()
    said = make_secrets(shape.compose, "kafka").stdout
    assert f"sudo chown 10001:10001 {shape.secrets}/seal.key" in said
    assert len(re.findall("chown", said)) == 1


def test_a_second_run_changes_nothing_and_what_was_deleted_comes_back(embedded: Shape) -> None:
    before = {path.name: path.read_bytes() for path in embedded.secrets.iterdir()}
    assert make_secrets(embedded.compose, "embedded").returncode == 0
    assert {path.name: path.read_bytes() for path in embedded.secrets.iterdir()} == before
    (embedded.secrets / "grafana.password").unlink()
    assert make_secrets(embedded.compose, "embedded").returncode == 0
    after = {path.name: path.read_bytes() for path in embedded.secrets.iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == ["grafana.password"]


def test_the_gateway_takes_the_seal_key(shape: Shape) -> None:
    (key,) = read_keys(shape.secrets / "seal.key")
    assert len(set(key)) > 8


def test_passwords_with_two_readers_are_the_same(shape: Shape) -> None:
    pairs = {"kafka": [("database", "postgres")], "rocketmq": [("database", "postgres"), ("log", "brokers")]}.get(shape.name, [])
    for one, other in pairs:
        assert (shape.secrets / f"{one}.password").read_bytes() == (shape.secrets / f"{other}.password").read_bytes()
    passwords = [path.read_bytes() for path in shape.secrets.glob("*.password")]
    assert len(set(passwords)) == len(passwords) - len(pairs)


def test_an_unknown_shape_is_refused_and_nothing_made(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_bytes((COMPOSE / "secrets").read_bytes())
    done = make_secrets(tmp_path, "everything")
    assert done.returncode == 2
    assert "embedded|kafka|rocketmq" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["secrets"]


@pytest.mark.parametrize("script", ["secrets", "kafka/broker.sh", "kafka/acls.sh", "rocketmq/broker.sh"])
def test_scripts_are_bash(script: str) -> None:
    subprocess.run(["bash", "-n", COMPOSE / script], check=True, timeout=10)
