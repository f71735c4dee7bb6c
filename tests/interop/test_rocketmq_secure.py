"""Brokers that show a certificate, and ones that want every request signed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridges.rocketmq.backend import RocketmqBackend
from bridges.rocketmq.errors import Refused, Unreachable
from bridges.rocketmq.log import open_rocketmq_log
from bridges.rocketmq.log_options import RocketmqLogOptions
from schemas.connections import ConnectionSettings, Secret
from schemas.errors import StartError
from schemas.records import PUBLISH_TOPIC
from streams.backend import Outgoing
from tests.contract.log_traffic import fill, numbers, take
from tests.support.brokers.rocketmq import V4, V5, RocketMQ, Version
from tests.support.certificates import Authority

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

USER, PASSWORD = "access", Secret("secret-key")
PROVIDERS = "org.apache.rocketmq.auth"
ACL = {
    "authenticationEnabled": "true",
    "authenticationProvider": f"{PROVIDERS}.authentication.provider.DefaultAuthenticationProvider",
    "authenticationMetadataProvider": f"{PROVIDERS}.authentication.provider.LocalAuthenticationMetadataProvider",
    "initAuthenticationUser": '{"username":"access","password":"secret-key"}',
    "innerClientAuthenticationCredentials": '{"accessKey":"access","secretKey":"secret-key"}',
    "authorizationEnabled": "true",
    "authorizationProvider": f"{PROVIDERS}.authorization.provider.DefaultAuthorizationProvider",
    "authorizationMetadataProvider": f"{PROVIDERS}.authorization.provider.LocalAuthorizationMetadataProvider",
}


def start(folder: Path, version: Version, settings: dict[str, str]) -> RocketMQ:
    """Name server and broker with a certificate of the folder's authority."""
    pair = Authority(folder).issue("server")
    lines = {"tls.test.mode.enable": "false", "tls.server.need.client.auth": "none", "tls.server.authClient": "false"}
    lines |= {"tls.server.keyPath": str(pair.key), "tls.server.certPath": str(pair.certificate)}
    (tls := folder / "tls.properties").write_text("".join(f"{name}={value}\n" for name, value in lines.items()), "utf-8")
    settings = {"flushDiskType": "SYNC_FLUSH", "authConfigPath": str(folder / "auth"), **settings}
    return RocketMQ(folder, version, settings=settings, tls=tls).start()


@pytest.fixture(params=["4.9", "5.5"])
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RocketMQ]:
    # 4.9 can't load its own ACL on the Java that the tests have.
    broker = start(tmp_path, V5, ACL) if request.param == "5.5" else start(tmp_path, V4, {})
    yield broker
    for server in (*broker.brokers, broker.namesrv):
        assert server is not None
        server.kill()


async def use(broker: RocketMQ, topic: str, **options: object) -> bytes:
    """Make a topic, send, receive."""
    settings = ConnectionSettings(name="main", kind="rocketmq", address=(broker.address,), durability="checked", **options)  # type: ignore[arg-type]
    backend = RocketmqBackend(settings)
    try:
        await backend.create_topic(topic, 1)
        await backend.target("rule", ordered=True).send([Outgoing(topic, b"body", (("name", "ä"),), f"{1:032X}", 1000, lane="lane")])
        async with asyncio.timeout(20):
            (got,) = await backend.source("rule", topic, {}).next(1, 1000)
        return got.body
    finally:
        await backend.close()


async def log_in(broker: RocketMQ, ca: Path, password: Secret) -> None:
    """The gateway's log instead of a rule."""
    settings = ConnectionSettings(name="main", kind="rocketmq", address=(broker.address,), tls=True, ca=ca, user=USER, password=password)
    log = await open_rocketmq_log(settings, node="n", epoch=1, options=RocketmqLogOptions(shards=1))
    await fill(log, range(20), keys=["k"])
    assert numbers(await take(log.open(PUBLISH_TOPIC, "earliest"), 20), "k") == list(range(20))
    await log.close()


async def test_tls_and_acl(broker: RocketMQ, tmp_path: Path) -> None:
    ours, others = tmp_path / "authority.pem", Authority(tmp_path, "others").path
    assert await use(broker, "signed", tls=True, ca=ours, user=USER, password=PASSWORD) == b"body"
    with pytest.raises(Unreachable, match="certificate verify failed"):
        await use(broker, "other-authority", tls=True, ca=others, user=USER, password=PASSWORD)
    await log_in(broker, ours, PASSWORD)
    if broker.version.has_proxy:
        with pytest.raises(StartError, match="signature"):
            await log_in(broker, ours, Secret("wrong"))
        for options in ({"user": USER, "password": Secret("wrong")}, {}):
            with pytest.raises(Refused, match="signature|username") as raised:
                await use(broker, "unsigned", tls=True, ca=ours, **options)
            assert PASSWORD.reveal() not in str(raised.value)
