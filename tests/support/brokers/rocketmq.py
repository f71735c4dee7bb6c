"""RocketMQ for tests: name server and brokers of a pinned version as JVMs, or ones that run already. Knows what to write into their settings.

5.5 runs broker and proxy in one process, so that both protocols are served: remoting and gRPC. 4.9 has the broker alone.
Calls block: async tests use threads.
"""

from __future__ import annotations

import json
import signal
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.frames import Command, FrameReader, encode_frame
from bridges.rocketmq.routes import parse_cluster
from tests.support.brokers import java
from tests.support.certificates import Authority

GROUP = "org.apache.rocketmq:rocketmq"
CLUSTER = "DefaultCluster"
SMALL = ("-Xms64m", "-Xmx128m", *java.QUICK)
HEAP = ("-Xms128m", "-Xmx512m")
UPDATE_BROKER_CONFIG = 25
ADMIN = "org.apache.rocketmq.tools.command.MQAdminStartup"
QUIET = "<configuration/>\n"
"""Logs go nowhere: a broker writes megabytes of them."""


@dataclass(frozen=True)
class Version:
    number: str
    endpoint: str
    options: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    """Logging settings that have to be in the home folder."""

    @property
    def has_proxy(self) -> bool:
        return self.number.startswith("5.")


def _endpoint(number: str, *parts: str, more: Sequence[str] = ()) -> str:
    return "+".join([*(f"{GROUP}-{part}:{number}" for part in parts), *more])


# The two grpc artifacts are named because jgo doesn't resolve the hard version ranges by which the proxy asks for them.
V5 = Version("5.5.0", _endpoint("5.5.0", "proxy", "namesrv", "tools", more=("io.grpc:grpc-core:1.53.0", "io.grpc:grpc-api:1.53.0")))
V4 = Version(
    "4.9.7",
    _endpoint("4.9.7", "broker", "namesrv", "tools"),
    options=(
        *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.nio", "sun.nio.ch", "java.lang")),
        "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    ),
    quiet=("logback_namesrv.xml", "logback_broker.xml", "logback_tools.xml"),
)


@dataclass(frozen=True)
class Ports:
    """RocketMQ takes the port two below a broker's for its own traffic, so they come in a row."""

    fast: int
    ha: int
    broker: int
    grpc: int
    proxy_remoting: int


class RocketMQ:
    """A name server with its brokers. ``destructible``: they are the tests' own, so that tests may kill and stop them.

    ``address`` is the name server's, `HOST:PORT`; ``grpc`` the proxy's, empty where there is none.
    """

    def __init__(
        self,
        folder: Path,
        version: Version,
        *,
        address: str = "",
        grpc: str = "",
        brokers: int = 1,
        settings: Mapping[str, str] | None = None,
        tls: Path | None = None,
        measured: bool = False,
    ) -> None:
        """``tls``: a file of properties. Without one there is no TLS, for which each server would make a key at its start, in seconds.
        ``measured``: how fast it is matters."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.version = version
        self.destructible = not address
        self._jit = () if measured else java.QUICK
        self.jars = java.classpath(version.endpoint)
        (folder / "conf").mkdir(exist_ok=True)
        for name in version.quiet:
            (folder / "conf" / name).write_text(QUIET, "utf-8")
        self._env = {"ROCKETMQ_HOME": str(folder)}
        secured = "-Dtls.server.mode=disabled" if tls is None else f"-Dtls.config.file={tls}"
        self._options = (f"-Drocketmq.home.dir={folder}", secured, *version.options)
        self.ports: list[Ports] = []
        self.brokers: list[java.Jvm] = []
        self.namesrv: java.Jvm | None = None
        self.address = address
        self.grpc = grpc
        if self.destructible:
            self._build(brokers, settings or {})

    def start(self) -> RocketMQ:
        if self.namesrv is not None:
            self.namesrv.start()
        for broker in self.brokers:
            broker.start()
        self.until_registered()
        return self

    # What tests do to it. The name server is killed and started by its own methods: `rocketmq.namesrv.kill()`.

    def kill(self) -> None:
        """kill -9 of the brokers, and of the proxies in them."""
        for broker in self.brokers:
            broker.kill()

    def restart(self) -> None:
        """Brokers, on their ports and data; registered and serving when this returns."""
        self.kill()
        for broker in self.brokers:
            broker.start()
        self.until_registered()

    def restart_namesrv(self) -> None:
        """It knows of no broker until they tell it, which is at most 10 s later."""
        assert self.namesrv is not None
        self.namesrv.kill()
        self.namesrv.start()

    def freeze(self) -> None:
        for broker in self.brokers:
            broker.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        for broker in self.brokers:
            broker.signal(signal.SIGCONT)

    # Its own tools.

    def run(self, main: str, *arguments: str, within: float = 60.0) -> str:
        """Any main class of the jars, full name."""
        return java.run_main(self.jars, main, *arguments, folder=self.folder, options=self._options, env=self._env, within=within)

    def admin(self, command: str, *arguments: str) -> str:
        """A command of mqadmin. It says `failed` or shows a trace and still ends with 0, so that is looked for."""
        said = self.run(ADMIN, command, "-n", self.address, *arguments)
        if "Exception" in said or " fail" in said:
            raise AssertionError(f"mqadmin {command} {' '.join(arguments)}\n{said}")
        return said

    def create_topic(self, name: str, queues: int = 8, kind: str = "NORMAL") -> None:
        """So many on each broker. ``kind`` is the message type: NORMAL, FIFO, DELAY, TRANSACTION; 4.9 knows none. The brokers are asked: mqadmin
        takes a JVM and seconds."""
        number = str(queues)
        fields = {"topic": name, "defaultTopic": "TBW102", "readQueueNums": number, "writeQueueNums": number, "perm": "6"}
        fields |= {"topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false"}
        if self.version.has_proxy:
            fields["attributes"] = f"+message.type={kind}"
        for address in masters(self.address).values():
            answer = _ask(address, Command(RequestCode.UPDATE_AND_CREATE_TOPIC, 1, fields=fields))
            assert answer.code == ResponseCode.SUCCESS, answer.remark

    def create_group(self, name: str) -> str:
        return self.admin("updateSubGroup", "-c", CLUSTER, "-g", name)

    def until_registered(self) -> None:
        """On a busy machine a broker serves for seconds before its name server knows. One of 5.5 that is faster than its own connection to the
        name server would try again after ten: it does when its permission is set, to what it was."""
        names = {f"broker-{'abcdefgh'[number]}" for number in range(len(self.brokers))}
        for ports in self.ports:
            if self.version.has_proxy and not names <= masters(self.address).keys():
                with suppress(OSError, AssertionError):  # not every broker lets anybody
                    _ask(f"127.0.0.1:{ports.broker}", Command(UPDATE_BROKER_CONFIG, 1, body=b"brokerPermission=6"))
        for broker in self.brokers[:1]:
            broker.until(lambda: names <= masters(self.address).keys(), 60.0, "its name server knew it")

    # Settings.

    def _build(self, brokers: int, settings: Mapping[str, str]) -> None:
        (port,) = java.free_ports(1)
        self.address = f"127.0.0.1:{port}"
        config = self.folder / "namesrv.conf"
        config.write_text(f"listenPort={port}\n", "utf-8")
        self.namesrv = self._jvm(f"namesrv-{self.version.number}", self.folder, "namesrv.NamesrvStartup", ("-c", str(config)), SMALL, b"boot success")
        for number in range(brokers):
            self.ports.append(Ports(*java.free_ports(5)))
            self.brokers.append(self._broker(number, settings))
        if self.version.has_proxy:
            self.grpc = f"127.0.0.1:{self.ports[0].grpc}"

    def _broker(self, number: int, settings: Mapping[str, str]) -> java.Jvm:
        ports = self.ports[number]
        name = f"broker-{'abcdefgh'[number]}"
        folder = self.folder / name
        folder.mkdir()
        config = folder / "broker.conf"
        lines = {**self._broker_settings(folder, name, ports), **settings}
        config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), "utf-8")
        full = (*HEAP, *self._jit, "-Drocketmq.broker.diskSpaceWarningLevelRatio=0.99", "-Drocketmq.broker.diskSpaceCleanForciblyRatio=0.98")
        title = f"{name}-{self.version.number}"
        if not self.version.has_proxy:
            return self._jvm(title, folder, "broker.BrokerStartup", ("-c", str(config)), full, b"boot success")
        proxy = folder / "rmq-proxy.json"
        served = {"grpcServerPort": ports.grpc, "remotingListenPort": ports.proxy_remoting}
        pair = Authority(folder).issue("proxy")  # or it would make one itself
        secured = {"tlsTestModeEnable": False, "tlsKeyPath": str(pair.key), "tlsCertPath": str(pair.certificate)}
        proxy.write_text(json.dumps({"rocketMQClusterName": CLUSTER, "namesrvAddr": self.address, **served, **secured}), "utf-8")
        arguments = ("--proxyMode", "local", "-bc", str(config), "-pc", str(proxy))
        return self._jvm(title, folder, "proxy.ProxyStartup", arguments, full, b"startup successfully")

    def _broker_settings(self, folder: Path, name: str, ports: Ports) -> dict[str, str]:
        store = folder / "store"
        return {
            "brokerClusterName": CLUSTER,
            "brokerName": name,
            "brokerId": "0",
            "brokerIP1": "127.0.0.1",
            "brokerIP2": "127.0.0.1",
            "namesrvAddr": self.address,
            "listenPort": str(ports.broker),
            "haListenPort": str(ports.ha),
            "storePathRootDir": str(store),
            "storePathCommitLog": str(store / "commitlog"),
            "mappedFileSizeCommitLog": "67108864",
            "maxHashSlotNum": "50000",
            "maxIndexNum": "200000",
            "diskMaxUsedSpaceRatio": "99",
            "autoCreateTopicEnable": "false",
            "enablePropertyFilter": "true",
            "registerNameServerPeriod": "10000",
            "transactionMetricFlushInterval": "500",  # it spins for as long before the first flush
            "timerFlushIntervalMs": "600000",  # of delayed messages, which nobody sends: at rest a third of what a broker costs
        }

    def _jvm(self, name: str, folder: Path, main: str, arguments: Sequence[str], heap: Sequence[str], ready: bytes) -> java.Jvm:
        line = java.command(self.jars, f"org.apache.rocketmq.{main}", arguments, folder, (*heap, *self._options))
        return java.Jvm(name, folder, line, java.environment(folder, **self._env), ready=ready)


def masters(namesrv: str, tls: ssl.SSLContext | None = None) -> Mapping[str, str]:
    """Addresses by name, as a name server knows them."""
    return parse_cluster(_ask(namesrv, Command(RequestCode.GET_BROKER_CLUSTER_INFO, 1), tls).body).masters


def _ask(address: str, command: Command, tls: ssl.SSLContext | None = None) -> Command:
    host, _, port = address.rpartition(":")
    reader = FrameReader()
    with socket.create_connection((host, int(port)), 10) as plain, tls.wrap_socket(plain, server_hostname=host) if tls else plain as link:
        link.sendall(encode_frame(command))
        while data := link.recv(65536):
            for answer in reader.feed(data):
                return answer
    raise AssertionError(f"{address} does not answer")
