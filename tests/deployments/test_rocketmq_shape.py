"""The deployment on RocketMQ as processes of this machine: its own script and settings start a name server, two masters with their replicas, three
gateways and the load balancer. Other than there: everything is on localhost, files and heaps are small, Java is newer, and the database has no TLS.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployments.running import Device, balanced, copied_for_localhost, hello_over_three, replaced, stand_in, three_gateways
from tests.support.brokers import java
from tests.support.brokers.rocketmq import HEAP, SMALL, V5, masters
from tests.support.gateway import Gateway
from tests.support.postgresql import fresh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOOLS = {"mqnamesrv": ("namesrv.NamesrvStartup", SMALL), "mqbroker": ("broker.BrokerStartup", (*HEAP, *java.QUICK))}
SMALLER = "mappedFileSizeCommitLog=67108864\nmaxHashSlotNum=50000\nmaxIndexNum=200000\ndiskMaxUsedSpaceRatio=99\n"
QUIETER = "transactionMetricFlushInterval=500\ntimerWheelEnable=false\n"
FULL = ("-Drocketmq.broker.diskSpaceWarningLevelRatio=0.99", "-Drocketmq.broker.diskSpaceCleanForciblyRatio=0.98")


class Site:
    """The copied deployment, and where its parts are here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shape = copied_for_localhost(folder, "rocketmq", "broker-b-replica")
        self.brokers = [name for name, service in self.shape.services.items() if "broker.sh" in str(service.get("entrypoint"))]
        ports = java.free_ports(1 + 3 * len(self.brokers))
        self.namesrv = ports[0]
        self.ports = {name: ports[1 + 3 * number : 4 + 3 * number] for number, name in enumerate(self.brokers)}
        """In front of a broker's port two are its own as well."""
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name, (main, heap) in TOOLS.items():
            stand_in(self.bin / name, V5.endpoint, f"org.apache.rocketmq.{main}", ("$JAVA_OPT_EXT", *heap, *FULL, f"-Drocketmq.home.dir={folder}"))
        (folder / "conf").mkdir()

    def placed(self, text: str, name: str = "") -> str:
        places: dict[str, object] = {
            "namesrv:9876": f"localhost:{self.namesrv}",
            "/run/secrets": self.shape.secrets,
            "/etc/sluiceway": self.folder / f"etc-{name}",
            "/tmp/broker.conf": self.folder / f"{name}.conf",
            "/home/rocketmq/store": self.folder / name / "store",
        }
        if name in self.ports:
            _, ha, port = self.ports[name]
            places |= {"10911": port, "10912": ha, "fileReservedTime=": f"{SMALLER}{QUIETER}fileReservedTime="}
        return replaced(text, places)

    def start(self, name: str) -> java.Jvm:
        given = self.shape.services[name]
        (self.folder / f"etc-{name}").mkdir()
        for path, target in self.shape.mounted(given):
            Path(self.placed(target, name)).write_text(self.placed(path.read_text("utf-8"), name), "utf-8")
        options = re.sub(r"-X\S+", "", self.placed(given["environment"]["JAVA_OPT_EXT"], name))
        environment = java.environment(
            self.folder, ROCKETMQ_HOME=str(self.folder), **{**given["environment"], "JAVA_OPT_EXT": options, "HOST": "localhost"}
        )
        line = [self.placed(word, name) for word in given.get("entrypoint", given.get("command"))]
        if name == "namesrv":
            (self.folder / "namesrv.conf").write_text(f"listenPort={self.namesrv}\n", "utf-8")
            line += ["-c", str(self.folder / "namesrv.conf")]
        server = java.Jvm(name, self.folder / name, line, environment, ready=b"boot success")
        server.spawn(line, environment, self.bin)
        return server

    def settings(self, database: str) -> str:
        text = self.placed((self.shape.folder / "gateway.toml").read_text("utf-8"))
        text = re.sub(r'url = "postgresql://[^"]+"', f'url = "{database}"', text)
        return text.replace("0.0.0.0:8883", "127.0.0.1:0").replace("172.30.41.0/24", "127.0.0.0/8")


def until_it_serves(server: java.Jvm) -> None:
    server.until(lambda: server._ready in server.out.read_bytes(), 120, "it served")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("rocketmq-shape"))
    started: dict[str, java.Jvm] = {}
    try:
        # In the order of the file's depends_on
        for name in sorted(("namesrv", *site.brokers), key=lambda name: (name != "namesrv", name.endswith("-replica"))):
            for other in site.shape.services[name].get("depends_on", {}).keys() & started.keys():
                until_it_serves(started[other])
            started[name] = site.start(name)
        for server in started.values():
            until_it_serves(server)
        # Of 5.5 a broker that is faster than its own connection to the name server tries again after ten seconds
        trusted = ssl.create_default_context(cafile=site.shape.secrets / "ca.crt")
        started["namesrv"].until(lambda: len(masters(f"localhost:{site.namesrv}", trusted)) == 2, 60, "it knew both masters")
        yield site
    finally:
        for server in started.values():
            server.kill()


def test_the_image_has_the_version_that_the_tests_run(site: Site) -> None:
    assert site.shape.services["namesrv"]["image"] == f"apache/rocketmq:{V5.number}"


def test_what_devices_behind_the_balancer_have_acknowledged_is_on_both_masters_and_their_replicas(
    site: Site, start_gateway: Callable[..., Gateway], servers: None
) -> None:
    gateways, key = three_gateways(site.shape, site.settings(fresh()), start_gateway)
    balancer = balanced(site.shape, gateways)
    hello_over_three(site.shape, balancer, gateways, key)
    devices = [Device(site.shape, balancer.port, f"publisher-{number}", key) for number in range(8)]
    try:
        for device in devices:
            device.publish("hello/again", b"again")
    finally:
        for device in devices:
            device.close()
    for name in site.brokers:
        logs = list((site.folder / name / "store" / "commitlog").iterdir())
        assert any(b"hello/again" in log.read_bytes() for log in logs), f"{name} has nothing of it"
