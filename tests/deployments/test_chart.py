"""The Helm chart: rendered by Helm's own code, valid to Kubernetes' schemas, and what it runs gets the settings and secrets that it needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.settings.load import load
from schemas.settings import Settings
from tests.deployments.shapes import COMPOSE, Shape
from tests.support.gateway import ROOT

CHART = COMPOSE / "helm" / "sluiceway"
KUBERNETES = ("1.30", "1.37")
SECRETS = {"tls": "mqtt-tls", "seal": "mqtt-seal"}
EMBEDDED: dict[str, Any] = {"secrets": SECRETS}
MANY: dict[str, Any] = {
    "shape": "many",
    "secrets": {**SECRETS, "database": "mqtt-database", "kafka": "mqtt-kafka"},
    "kafka": {"address": "kafka-0.kafka:9092,kafka-1.kafka:9092", "ownAuthority": True},
    "postgresql": {"url": "postgresql://sluiceway@postgresql:5432/sluiceway?sslmode=verify-full&sslrootcert=system"},
    "proxyNetworks": ["10.1.0.0/16"],
    "settings": '[limits]\npacket = "2MiB"\n\n[[access]]\nprincipal = "*"\naction = "publish"\nfilter = "secret/#"\neffect = "deny"\n',
    "service": {"type": "ClusterIP", "annotations": {"a": "b"}},
    "persistence": {"storageClass": "fast"},
    "pullSecrets": ["registry"],
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "mqtt", "operator": "Exists"}],
}
WRONG = {
    "secrets.tls: name the Secret": {"secrets": {"seal": "seal"}},
    "secrets.seal: name the Secret": {"secrets": {"tls": "tls"}},
    "secrets.kafka: name the Secret": {**MANY, "secrets": {**SECRETS, "database": "database"}},
    "kafka.address: say where": {**MANY, "kafka": {"address": ""}},
    "postgresql.url: say where": {**MANY, "postgresql": {"url": ""}},
    "replica' not allowed": {**EMBEDDED, "replica": 3},
    "'/shape'": {**EMBEDDED, "shape": "rocketmq"},
    "'/image/tag'": {**EMBEDDED, "image": {"tag": "latest"}},
}
"""By a part of what Helm says."""


@pytest.fixture(scope="session")
def renderings() -> dict[str, dict[str, str]]:
    values = [EMBEDDED, MANY, *WRONG.values()]
    command = [sys.executable, "-m", "tests.deployments.render", str(CHART)]
    done = subprocess.run(command, input=json.dumps(values), cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(zip(("embedded", "many", *WRONG), json.loads(done.stdout), strict=True))


class Objects:
    def __init__(self, files: dict[str, str]) -> None:
        assert "error" not in files, files["error"]
        self.all = [made for name, text in files.items() if name.endswith(".yaml") for made in yaml.safe_load_all(text) if made]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [made for made in self.all if made["kind"] == kind]

    @property
    def pod(self) -> dict[str, Any]:
        return self.of("StatefulSet")[0]["spec"]["template"]["spec"]  # type: ignore[no-any-return]

    def settings(self, shape: Shape, folder: Path, pod: str) -> Settings:
        """As the container of a pod reads them; secrets are those of a compose file's deployment."""
        (config,) = self.of("ConfigMap")
        text = config["data"]["gateway.toml"]
        ours = {
            "tls/tls.crt": "gateway.crt",
            "tls/tls.key": "gateway.key",
            "database/password": "database.password",
            "kafka/password": "log.password",
        }
        for theirs, file in ours.items():
            text = text.replace(f"/run/secrets/{theirs}", str(shape.secrets / file))
        (folder / "gateway.toml").write_text(text, "utf-8")
        environment = {variable["name"]: variable.get("value", pod) for variable in self.pod["containers"][0]["env"]}
        return load({}, environment, folder / "gateway.toml")


@pytest.fixture(scope="session", params=["embedded", "many"])
def objects(renderings: dict[str, dict[str, str]], request: pytest.FixtureRequest) -> Objects:
    return Objects(renderings[request.param])


@pytest.fixture(scope="session")
def many(renderings: dict[str, dict[str, str]]) -> Objects:
    return Objects(renderings["many"])


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_it(objects: Objects, version: str) -> None:
    assert objects.all
    for made in objects.all:
        kubernetes_validate.validate(made, version, strict=True)


def test_the_schemas_refuse_what_kubernetes_does_not_know(objects: Objects) -> None:
    wrong = json.loads(json.dumps(objects.of("StatefulSet")[0]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("words", WRONG)
def test_wrong_values_are_refused_in_words(renderings: dict[str, dict[str, str]], words: str) -> None:
    assert words in renderings[words].get("error", "")


def test_the_gateways_settings_pass_the_programs_check(renderings: dict[str, dict[str, str]], on_kafka: Shape, tmp_path: Path) -> None:
    embedded = Objects(renderings["embedded"]).settings(on_kafka, tmp_path, "demo-sluiceway-0")
    assert (embedded.log.kind, embedded.node.many, embedded.proxy) == ("embedded", False, ())
    many = Objects(renderings["many"]).settings(on_kafka, tmp_path, "demo-sluiceway-1")
    assert (many.log.kind, many.node.many, many.node.id) == ("kafka", True, "demo-sluiceway-1")
    assert many.log.durability == "checked"
    assert many.log.replication == 3
    assert many.store.url == MANY["postgresql"]["url"]
    assert [str(network) for network in many.proxy[0].networks] == MANY["proxyNetworks"]
    assert many.limits.packet == 2 << 20
    assert len(many.access) == 1
    (connection,) = many.connections
    assert connection.tls
    assert connection.password is not None
    for settings in (embedded, many):
        assert not settings.mqtt
        assert settings.tls.http
        assert str(settings.data) == "/var/lib/sluiceway/data"


def test_each_file_that_the_settings_name_is_mounted(objects: Objects) -> None:
    (container,) = objects.pod["containers"]
    text = objects.of("ConfigMap")[0]["data"]["gateway.toml"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    named = set(re.findall(r'"(/(?:run|etc)/[^"]+)/[^/"]+"', text)) | {"/etc/sluiceway"}
    assert named == set(mounts) - {"/tmp", "/var/lib/sluiceway"}
    volumes = {volume["name"] for volume in objects.pod["volumes"]} | {"data"}
    (seal,) = objects.pod["initContainers"]
    assert {mount["name"] for mount in (*container["volumeMounts"], *seal["volumeMounts"])} == volumes
    assert container["args"] == ["--config", "/etc/sluiceway/gateway.toml"]


def test_secrets_come_from_secrets_alone(objects: Objects) -> None:
    assert not objects.of("Secret")
    assert all("valueFrom" in variable or variable["name"] == "SLUICEWAY_DATA" for variable in objects.pod["containers"][0]["env"])
    named = {volume["secret"]["secretName"] for volume in objects.pod["volumes"] if "secret" in volume}
    assert named == set((MANY if "mqtt-kafka" in named else EMBEDDED)["secrets"].values())


def test_pods_may_do_no_more_than_they_need(objects: Objects) -> None:
    pod = objects.pod
    user = re.search(r"^USER (\d+):(\d+)$", (COMPOSE / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert user is not None
    security = pod["securityContext"]
    assert security["runAsNonRoot"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (int(user[1]), int(user[2]), int(user[2]))
    assert security["fsGroupChangePolicy"] == "OnRootMismatch", "else a restart opens the data folder's files to the group, which a gateway refuses"
    assert not pod["automountServiceAccountToken"]
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not container["image"].endswith(":latest")
        assert "limits" in container["resources"]


def test_nodes_are_as_many_as_the_shape_has(renderings: dict[str, dict[str, str]]) -> None:
    counts = {name: Objects(renderings[name]).of("StatefulSet")[0]["spec"]["replicas"] for name in ("embedded", "many")}
    assert counts == {"embedded": 1, "many": 3}
    assert not Objects(renderings["embedded"]).of("PodDisruptionBudget")


def test_services_reach_the_pods_and_only_mqtt_leaves_the_cluster(objects: Objects) -> None:
    (stateful,) = objects.of("StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in objects.pod["containers"][0]["ports"]}
    for service in objects.of("Service"):
        assert service["spec"]["selector"].items() <= labels.items()
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
        inside = service["spec"].get("clusterIP") == "None"
        assert inside == (service["metadata"]["name"] == stateful["spec"]["serviceName"])
        assert inside or [port["name"] for port in service["spec"]["ports"]] == ["mqtts"]
    assert stateful["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_a_new_configuration_starts_the_pods_anew(renderings: dict[str, dict[str, str]]) -> None:
    checksums = {
        Objects(files).of("StatefulSet")[0]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for files in (renderings["embedded"], renderings["many"])
    }
    assert len(checksums) == 2


def test_the_seal_key_ends_as_the_gateways_own_file(many: Objects, on_kafka: Shape, tmp_path: Path) -> None:
    """The command of the init container, here: what it makes, of a file that others may read, is what the gateway takes."""
    (container,) = many.pod["initContainers"]
    source, target = tmp_path / "secret", tmp_path / "seal.key"
    source.write_bytes((on_kafka.secrets / "seal.key").read_bytes())
    source.chmod(0o440)
    places = {"/run/secrets/seal/seal.key": str(source), "/run/seal/seal.key": str(target)}
    subprocess.run([places.get(word, word) for word in container["command"]], check=True, timeout=10)
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_uid == os.getuid()
    assert 'seal_file = "/run/seal/seal.key"' in many.of("ConfigMap")[0]["data"]["gateway.toml"]


def test_versions_follow_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    version = re.search(r'^version = "([^"]+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version is not None
    assert (chart["appVersion"], values["image"]["tag"]) == (version[1], version[1])
