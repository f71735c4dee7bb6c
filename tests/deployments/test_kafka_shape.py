"""The deployment on Kafka as processes of this machine: its own scripts start three brokers and give rights, its own settings start three
gateways and the load balancer. Other than there: everything is on localhost, and the database has no TLS.

What is replaced is places: hosts and ports, and folders of the images.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from bridges.kafka.connection import Connection
from gateway.settings.load import load
from tests.deployments.running import balanced, copied_for_localhost, hello_over_three, replaced, stand_in, three_gateways
from tests.support.brokers import java
from tests.support.brokers.kafka import HEAP, JARS, LOGGING, VERSION
from tests.support.gateway import Gateway
from tests.support.postgresql import fresh
from tests.support.process import listens

pytestmark = [pytest.mark.brokers, pytest.mark.slow, pytest.mark.timeout(600)]

TOOLS = {"kafka-storage.sh": "kafka.tools.StorageTool", "kafka-server-start.sh": "kafka.Kafka", "kafka-acls.sh": "org.apache.kafka.tools.AclCommand"}
BROKER_PORTS = ("9092", "9094", "9095")
NODES = ("1", "2", "3")


class Site:
    """The copied deployment, and where its parts are here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shape = copied_for_localhost(folder, "kafka", '"$kafka" "$node"')
        ports = iter(java.free_ports(len(NODES) * len(BROKER_PORTS)))
        self.ports = {(node, port): next(ports) for node in NODES for port in BROKER_PORTS}
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name, main in TOOLS.items():
            lasting = (*HEAP, *java.QUICK) if main == "kafka.Kafka" else java.QUICK
            stand_in(self.bin / name, JARS, main, (*lasting, f"-Dlog4j2.configurationFile={folder}/log4j2.properties"))
        (folder / "log4j2.properties").write_text(LOGGING, "utf-8")

    def placed(self, text: str, node: str = "") -> str:
        """With hosts and folders of here. ``node``: whose settings these are."""
        text = text.replace("kafka-@NODE@:", f"kafka-{node}:")
        text = re.sub(r"kafka-(\d):(\d{4})", lambda found: f"localhost:{self.ports[found[1], found[2]]}", text)
        text = re.sub(r"://:(\d{4})", lambda found: f"://localhost:{self.ports[node, found[1]]}", text)
        places = {
            "/run/secrets": self.shape.secrets,
            "/etc/sluiceway": self.folder / f"etc{node}",
            "/opt/kafka/bin": self.bin,
            "/tmp/server.properties": self.folder / f"server-{node}.properties",
            "/var/lib/kafka": self.folder / f"kafka-{node}",
        }
        return replaced(text, places)

    def command(self, service: str, node: str = "") -> list[str]:
        """What a service runs, with the files that it mounts."""
        (self.folder / f"etc{node}").mkdir()
        given = self.shape.services[service]
        for path, target in self.shape.mounted(given):
            Path(self.placed(target, node)).write_text(self.placed(path.read_text("utf-8"), node), "utf-8")
        return [self.placed(word, node) for word in given["entrypoint"]]

    def broker(self, node: str) -> java.Jvm:
        given = self.shape.services[f"kafka-{node}"]["environment"]
        environment = java.environment(self.folder, NODE=given["NODE"], CLUSTER_ID=given["CLUSTER_ID"])
        folder = self.folder / f"kafka-{node}"
        broker = java.Jvm(f"kafka-{node}", folder, self.command(f"kafka-{node}", node), environment, ready=b"")
        broker.spawn(broker._line, environment, self.folder)
        return broker

    def give_rights(self) -> None:
        done = subprocess.run(self.command("acls"), env=java.environment(self.folder), capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def settings(self, database: str) -> str:
        text = self.placed((self.shape.folder / "gateway.toml").read_text("utf-8"))
        text = re.sub(r'url = "postgresql://[^"]+"', f'url = "{database}"', text)
        return text.replace("0.0.0.0:8883", "127.0.0.1:0").replace("172.30.40.0/24", "127.0.0.0/8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("kafka-shape"))
    brokers = {node: site.broker(node) for node in NODES}
    try:
        for node, broker in brokers.items():
            broker.until(lambda port=site.ports[node, "9092"]: listens(port), 120, "it listened")  # type: ignore[misc]
        site.give_rights()
        yield site
    finally:
        for broker in brokers.values():
            broker.kill()


def test_the_image_has_the_version_that_the_tests_run(site: Site) -> None:
    assert site.shape.services["kafka-1"]["image"] == f"apache/kafka:{VERSION}"


def test_devices_behind_the_balancer_reach_each_other_over_three_gateways(site: Site, start_gateway: Callable[..., Gateway], servers: None) -> None:
    gateways, key = three_gateways(site.shape, site.settings(fresh()), start_gateway)
    hello_over_three(site.shape, balanced(site.shape, gateways), gateways, key)


async def test_rules_cannot_reach_the_log(site: Site) -> None:
    file = site.folder / "gateway.toml"
    file.write_text(site.settings("postgresql://nobody@localhost/none"), "utf-8")
    by_user = {settings.user: settings for settings in load({}, {}, file).connections}
    for user, forbidden, allowed in (("sluiceway-rules", "sluiceway-publish", "devices-all"), ("sluiceway-log", "devices-all", "sluiceway-publish")):
        connection = Connection(by_user[user])
        with pytest.raises(TopicAuthorizationFailedError):
            await connection.topic(forbidden)
        await connection.topic(allowed)
        await connection.close()
