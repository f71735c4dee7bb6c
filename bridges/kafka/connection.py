"""A named connection to Kafka: how clients are made from its settings, how their failures are told, and the few calls that belong to no rule.

No free-form options: what a client gets is written here. target.py and source.py make clients of their own from ``options``, so that a
rule that is stuck holds up nobody else. Kafka makes topics by itself when a client asks for them by name, unless the broker forbids it:
who uses a topic asks ``topic`` first, which doesn't.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from aiokafka import AIOKafkaClient
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import InvalidTopicError, KafkaConnectionError, KafkaError, NodeNotReadyError, NoError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.metadata import MetadataRequest

from schemas.connections import ConnectionSettings
from schemas.errors import BackendError

ANSWER_WITHIN: Final = 7.0
"""Seconds for whatever is asked; the port promises 10, and the reason of a failure is asked for after that."""

REQUEST_MS: Final = 5_000
"""A request that is not answered by then is given up, and its connection with it."""

REFRESH_MS: Final = 10_000
"""How old metadata gets: new partitions are found by that."""

COMMIT_WITHIN: Final = 3.0
"""Seconds for a commit that is for other people's tools only."""

ASK_WHY: Final = 2.0
"""Seconds to find out why a connection fails."""

PAUSE: Final = 0.05
"""Seconds between questions to a broker that will know soon."""

TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


def words(error: BaseException) -> str:
    """The error's kind, and what it says itself, which may be nothing. aiokafka's errors name their kind themselves."""
    return str(error) if isinstance(error, KafkaError) else f"{type(error).__name__}: {error}".removesuffix(": ")


class Topic(msgspec.Struct, frozen=True):
    """What the broker says of a topic. ``led``: the partitions that have a leader just now. ``largest`` and ``compacted`` are 0 and
    False where we may not ask."""

    partitions: tuple[int, ...]
    led: tuple[int, ...]
    largest: int = 0
    compacted: bool = False


class Opened(Protocol):
    """A part that lives on the connection."""

    async def close(self) -> None: ...


class FileToken(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """The token for OAUTHBEARER, read anew for each connect: what renews it writes the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        return (await asyncio.to_thread(self._path.read_text, "utf-8")).strip()


class Connection:
    """Shared by everything that uses one `[connections.NAME]`."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self.trouble = ""
        self.opened: set[Opened] = set()
        """Targets and sources that are not closed yet: as many as there are rules."""
        self._control: AIOKafkaClient | None = None
        self._lock = asyncio.Lock()
        # It says at ERROR, ten times a second, what we raise and show once
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    def options(self) -> dict[str, Any]:
        """Keywords for any client of aiokafka. Certificates are read here, so that a new client has the new ones."""
        settings = self.settings
        secured = {(False, False): "PLAINTEXT", (True, False): "SSL", (False, True): "SASL_PLAINTEXT", (True, True): "SASL_SSL"}
        options: dict[str, Any] = {
            "bootstrap_servers": list(settings.address),
            "client_id": f"sluiceway-{settings.name}",
            "request_timeout_ms": REQUEST_MS,
            "metadata_max_age_ms": REFRESH_MS,
            "security_protocol": secured[settings.tls, settings.mechanism is not None],
        }
        if settings.tls:
            options["ssl_context"] = self._tls()
        if settings.mechanism is None:
            return options
        options["sasl_mechanism"] = settings.mechanism
        if settings.mechanism != "OAUTHBEARER":
            return options | {"sasl_plain_username": settings.user, "sasl_plain_password": settings.password.reveal()}
        if settings.token_file is None:
            raise BackendError(f"connection {self.name}: OAUTHBEARER needs token_file, the file that holds the token", retryable=False)
        return options | {"sasl_oauth_token_provider": FileToken(settings.token_file)}

    def _tls(self) -> ssl.SSLContext:
        settings = self.settings
        try:
            context = ssl.create_default_context(cafile=settings.ca)
            if settings.certificate is not None:
                context.load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as error:
            raise BackendError(f"connection {self.name}: ca, certificate or key can't be read: {error}") from error
        return context

    @asynccontextmanager
    async def attempt(self, what: str, within: float = ANSWER_WITHIN) -> AsyncIterator[None]:
        """Bounded in time; a failure is a BackendError, and shown until something succeeds."""
        try:
            async with asyncio.timeout(within):
                yield
        except TimeoutError as error:
            raise self.failed(what, f"no answer within {within:g} s") from error
        except KafkaConnectionError as error:
            raise self.failed(what, await self._why(error)) from error
        except (KafkaError, OSError) as error:
            raise self.failed(what, words(error)) from error
        self.trouble = ""

    async def _why(self, error: KafkaConnectionError) -> str:
        """aiokafka says that it can't connect and keeps the reason to itself: one connection by hand tells it."""
        options = {name: value for name, value in self.options().items() if name not in ("bootstrap_servers", "metadata_max_age_ms")}
        try:
            async with asyncio.timeout(ASK_WHY):
                for host, port, _ in collect_hosts(list(self.settings.address), randomize=False):
                    (await create_conn(host, port, **options)).close()
        except (KafkaError, OSError) as reason:
            return f"{host}:{port}: {words(reason)}"
        return words(error)

    def failed(self, what: str, why: str) -> BackendError:
        self.trouble = f"{what}: {why}"
        return BackendError(f"connection {self.name}: {self.trouble}")

    def refused(self, what: str, why: str) -> BackendError:
        """No trouble of the connection: it was asked and answered."""
        return BackendError(f"connection {self.name}: {what}: {why}")

    def missing(self, topic: str) -> BackendError:
        """No trouble of the connection: whoever owns the topic may make it yet."""
        return BackendError(f"connection {self.name}: there is no topic {topic}; it is made by: {self.creation_hint(topic)}")

    def creation_hint(self, topic: str) -> str:
        where = ",".join(self.settings.address)
        return f"kafka-topics.sh --bootstrap-server {where} --create --topic {shlex.quote(topic)} --partitions 8"

    # Calls that belong to no rule. Within an ``attempt``.

    async def topic(self, name: str) -> Topic | None:
        """None where the broker says that there is none. Never makes one."""
        if not TOPIC_NAME.fullmatch(name):
            return None
        request = MetadataRequest([name], allow_auto_topic_creation=False)
        (answer,) = (await self._ask(request)).to_object()["topics"]
        error = for_code(answer["error_code"])
        if error in (UnknownTopicOrPartitionError, InvalidTopicError):
            return None
        if error is not NoError:
            raise error(name)
        partitions = tuple(sorted(partition["partition"] for partition in answer["partitions"]))
        led = tuple(sorted(partition["partition"] for partition in answer["partitions"] if partition["leader"] >= 0))
        settings = await self._topic_settings(name)
        return Topic(partitions, led, int(settings.get("max.message.bytes", 0)), "compact" in settings.get("cleanup.policy", ""))

    async def _topic_settings(self, name: str) -> dict[str, str]:
        """Empty where they are not for us to see."""
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        request = DescribeConfigsRequest([(resource.resource_type, name, ["max.message.bytes", "cleanup.policy"])], include_synonyms=False)
        settings: dict[str, str] = {}
        for code, _, _, _, entries in (await self._ask(request)).resources:
            if code == 0:
                settings |= {entry[0]: entry[1] for entry in entries}
        return settings

    async def commit(self, group: str, topic: str, positions: Mapping[str, int]) -> None:
        """As a consumer without a group's protocol does, so that the group's lag is seen."""
        partitions = [(int(queue), offset, "") for queue, offset in positions.items()]
        request = OffsetCommitRequest(group, -1, "", -1, [(topic, partitions)])
        async with self._client() as client:
            coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
            answer = await client.send(coordinator, request, group=ConnectionGroup.COORDINATION)
        for _, errors in answer.topics:
            for _, code in errors:
                if for_code(code) is not NoError:
                    raise for_code(code)(group)

    async def _ask(self, request: object) -> Any:
        """Of any broker; one that is gone is still named by the others for a while."""
        async with self._client() as client:
            error = NodeNotReadyError("no broker is known")
            for broker in client.cluster.brokers():
                try:
                    return await client.send(broker.nodeId, request)
                except NodeNotReadyError as reason:
                    error = reason
            raise error

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AIOKafkaClient]:
        async with self._lock:
            if self._control is None:
                client = AIOKafkaClient(**self.options())
                try:
                    await client.bootstrap()
                except BaseException:
                    await client.close()
                    raise
                self._control = client
            client = self._control
        try:
            yield client
        except BaseException:
            # Nobody knows in what state it is; the next one who asks gets a new one
            if client is self._control:
                await self.close()
            raise

    async def close(self) -> None:
        client, self._control = self._control, None
        if client is not None:
            await client.close()
