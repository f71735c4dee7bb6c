"""Kafka for tests: KRaft nodes of the pinned version as JVMs, or one that runs already. Knows what to write into their settings and when they serve.

A node has four listeners: plain; `proxied`, whose clients are sent to another port than it listens on, where a test puts its
proxy; `sasl` and `tls`, both with certificates (the second asks clients for theirs). Calls block: async tests use threads.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.brokers import java
from tests.support.certificates import Authority, Pair

VERSION = "4.3.1"
# `!`: its own choice of versions, for other artifacts too, is not taken over
JARS = f"org.apache.kafka:kafka_2.13:{VERSION}+org.apache.kafka:kafka-tools:{VERSION}+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
CLUSTER_ID = "c2x1aWNld2F5LXRlc3RzLg"
HEAP = ("-Xms128m", "-Xmx512m")
LOGGING = """rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
"""
USER, PASSWORD = "alice", "alice-secret"
"""Known to the listener `sasl`, under PLAIN and SCRAM. OAUTHBEARER there takes unsigned tokens."""
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""A request as its length, key, version, number and client id, which is none."""
METADATA = struct.pack(">ihhihi", 14, 3, 0, 2, -1, 0)
"""Of all topics. The answer: its length, the number, how many brokers there are, and then who."""
TOOLS = "org.apache.kafka.tools."


@dataclass(frozen=True)
class Ports:
    plain: int
    controller: int
    proxied: int
    proxy: int
    """Where clients of `proxied` are sent. Nothing listens there until a test does."""
    sasl: int
    tls: int


class Node(java.Jvm):
    """One broker and controller."""

    def __init__(self, folder: Path, number: int, ports: Ports, settings: Mapping[str, str], options: Sequence[str]) -> None:
        self.jars = java.classpath(JARS)
        self.ports = ports
        self.address = f"127.0.0.1:{ports.plain}"
        config = folder / "server.properties"
        logging = folder / "log4j2.properties"
        logging.write_text(LOGGING, "utf-8")
        line = java.command(self.jars, "kafka.Kafka", [str(config)], folder, (*HEAP, *options, f"-Dlog4j2.configurationFile={logging}"))
        super().__init__(f"kafka-{number}", folder, line, java.environment(folder), ready=b"", within=120.0)
        config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), "utf-8")

    def format(self) -> None:
        scram = [option for kind in ("256", "512") for option in ("--add-scram", f"SCRAM-SHA-{kind}=[name={USER},password={PASSWORD}]")]
        arguments = ("format", "-t", CLUSTER_ID, "-c", str(self.folder / "server.properties"), *scram)
        java.run_main(self.jars, "kafka.tools.StorageTool", *arguments, folder=self.folder)

    def start(self) -> None:
        self.spawn(self._line, self._env, self.folder)
        self.until(self._answers, self._within, "it answered")

    def _answers(self) -> bool:
        """ApiVersions is served when all else is; before that the port is closed or silent."""
        return len(self._ask(API_VERSIONS, 4)) == 4

    def _knows(self, nodes: int) -> bool:
        """So many brokers may be given partitions."""
        answer = self._ask(METADATA, 12)
        return len(answer) == 12 and struct.unpack(">iii", answer)[2] == nodes

    def _ask(self, request: bytes, size: int) -> bytes:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            try:
                probe.connect(("127.0.0.1", self.ports.plain))
                probe.sendall(request)
                return probe.recv(size, socket.MSG_WAITALL)
            except OSError:
                return b""


class Kafka:
    """A cluster. ``destructible``: it is the tests' own, so that they may kill and stop its nodes. ``measured``: how fast it is matters."""

    def __init__(self, folder: Path, *, address: str = "", nodes: int = 1, settings: Mapping[str, str] | None = None, measured: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.destructible = not address
        self.nodes: list[Node] = []
        self.authority = Authority(folder, "authority")
        self._options = () if measured else java.QUICK
        if self.destructible:
            ports = [Ports(*java.free_ports(6)) for _ in range(nodes)]
            pair = self.authority.issue("kafka")
            self.nodes = [self._node(number, ports, pair, settings or {}) for number in range(1, nodes + 1)]
        self.address = address or ",".join(node.address for node in self.nodes)

    def start(self) -> Kafka:
        for node in self.nodes:
            node.format()
            node.spawn(node._line, node._env, node.folder)
        for node in self.nodes:
            node.until(node._answers, 120.0, "it answered")
        for node in self.nodes:
            node.until(partial(node._knows, len(self.nodes)), 60.0, "it knew all nodes")
        return self

    @property
    def node(self) -> Node:
        return self.nodes[0]

    # What tests do to it.

    def kill(self) -> None:
        """kill -9, all nodes."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        """Same ports, same data; serving when this returns."""
        self.kill()
        for node in self.nodes:
            node.start()

    def freeze(self) -> None:
        for node in self.nodes:
            node.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        for node in self.nodes:
            node.signal(signal.SIGCONT)

    # Its own tools.

    def run(self, main: str, *arguments: str, within: float = 60.0) -> str:
        """Any main class of the jars, full name."""
        return java.run_main(java.classpath(JARS), main, *arguments, folder=self.folder, within=within)

    def create_topic(self, name: str, queues: int = 1, *, replicas: int = 0, **settings: str) -> None:
        """``settings`` with underscores for dots: `max_message_bytes="1000"`. Replicated to all nodes, or to so many. By a client, since the
        tool of its own takes a JVM."""
        wanted = {key.replace("_", "."): value for key, value in settings.items()}
        topic = NewTopic(name, queues, replicas or max(len(self.nodes), 1), topic_configs=wanted)
        with ThreadPoolExecutor(1) as pool:  # who calls may have a loop
            pool.submit(asyncio.run, _create(self.address, topic)).result()

    def _node(self, number: int, ports: Sequence[Ports], pair: Pair, settings: Mapping[str, str]) -> Node:
        folder = self.folder / f"node-{number}"
        folder.mkdir()
        return Node(folder, number, ports[number - 1], {**self._settings(folder, number, ports, pair), **settings}, self._options)

    def _settings(self, folder: Path, number: int, all_ports: Sequence[Ports], pair: Pair) -> dict[str, str]:
        ports, replicas = all_ports[number - 1], str(len(all_ports))
        enough = str(len(all_ports) // 2 + 1)
        names = ("PLAIN", "PROXIED", "SASL", "TLS")
        at = (ports.plain, ports.proxied, ports.sasl, ports.tls)
        sent_to = (ports.plain, ports.proxy, ports.sasl, ports.tls)
        listeners = [f"{name}://127.0.0.1:{port}" for name, port in zip(names, at, strict=True)]
        return {
            "process.roles": "broker,controller",
            "node.id": str(number),
            "controller.quorum.voters": ",".join(f"{index}@127.0.0.1:{each.controller}" for index, each in enumerate(all_ports, 1)),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{ports.controller}"]),
            "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in zip(names, sent_to, strict=True)),
            "listener.security.protocol.map": "PLAIN:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,TLS:SSL",
            "log.dirs": str(folder / "data"),
            # Kafka's default, and a trap: who looks for a topic has one
            "auto.create.topics.enable": "true",
            # A broker that was killed is taken back when the session it had is over
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            "default.replication.factor": replicas,
            "min.insync.replicas": enough,
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": enough,
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": replicas,
            # Tests date their messages as they like, 1970 too: they are not to be swept while somebody reads them
            "log.retention.ms": "-1",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": "2097152",
            **self._security(pair),
        }

    def _security(self, pair: Pair) -> dict[str, str]:
        """PEM files need a store each: the key and its chain in one."""
        store = pair.certificate.with_name("keystore.pem")
        store.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
        sasl, modules = "listener.name.sasl.", "org.apache.kafka.common.security."
        plain = f'{modules}plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        bearer = f'{modules}oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        unsigned = f"{modules}oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.path),
            "listener.name.tls.ssl.client.auth": "required",
            f"{sasl}sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            f"{sasl}plain.sasl.jaas.config": plain,
            f"{sasl}scram-sha-256.sasl.jaas.config": f"{modules}scram.ScramLoginModule required;",
            f"{sasl}scram-sha-512.sasl.jaas.config": f"{modules}scram.ScramLoginModule required;",
            f"{sasl}oauthbearer.sasl.jaas.config": bearer,
            f"{sasl}oauthbearer.sasl.server.callback.handler.class": unsigned,
        }


async def _create(address: str, topic: NewTopic) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        for name, code, *words in (await admin.create_topics([topic])).topic_errors:
            assert code == 0, (name, code, words)
        async with asyncio.timeout(20):
            while sum(part["leader"] >= 0 for part in (await admin.describe_topics([topic.name]))[0]["partitions"]) < topic.num_partitions:
                await asyncio.sleep(0.05)
    finally:
        await admin.close()
