"""The raw client speaks MQTT with a broker that is not ours, so what it tells of ours can be believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.protocol.packet_types import PacketType
from gateway.protocol.packets import Ack, Pingresp, Publish, WillMessage
from gateway.protocol.properties import Properties
from schemas.reasons import ReasonCode
from tests.support.mosquitto import Mosquitto
from tests.support.wire import Clients

VERSIONS = pytest.mark.parametrize("version", [4, 5])


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    folder: Path = tmp_path_factory.mktemp("mosquitto")
    server = Mosquitto(folder).start()
    yield server
    server.kill()


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_publishes_and_receives(mosquitto: Mosquitto, clients: Clients, version: int, qos: int) -> None:
    subscriber = await clients.connect(mosquitto.mqtt, f"sub{version}{qos}", version)
    granted = await subscriber.subscribe(f"t/{version}/{qos}", qos)
    assert granted.reason_codes == (ReasonCode(qos),)
    publisher = await clients.connect(mosquitto.mqtt, f"pub{version}{qos}", version)
    bodies = [bytes([number]) * number * 999 for number in range(20)]
    for body in bodies:
        await publisher.publish(f"t/{version}/{qos}", body, qos)
    got = await subscriber.publishes(len(bodies))
    assert [(packet.payload, packet.qos) for packet in got] == [(body, qos) for body in bodies]
    await subscriber.silence()
    await subscriber.disconnect()


@VERSIONS
async def test_without_auto_ack_the_test_acknowledges(mosquitto: Mosquitto, clients: Clients, version: int) -> None:
    subscriber = await clients.connect(mosquitto.mqtt, f"manual{version}", version, auto_ack=False)
    await subscriber.subscribe(f"manual/{version}", 2)
    publisher = await clients.connect(mosquitto.mqtt, f"other{version}", version)
    await publisher.publish(f"manual/{version}", b"x", 2)
    delivery = await subscriber.expect(Publish)
    subscriber.ack(PacketType.PUBREC, delivery.packet_id)
    release = await subscriber.expect(Ack)
    assert (release.type, release.packet_id) == (PacketType.PUBREL, delivery.packet_id)
    subscriber.ack(PacketType.PUBCOMP, delivery.packet_id)
    await subscriber.silence()


async def test_properties_and_session_expiry_travel(mosquitto: Mosquitto, clients: Clients) -> None:
    first = await clients.connect(mosquitto.mqtt, "stays", session_expiry=60, properties=Properties(receive_maximum=7))
    await first.subscribe("stays", 1, no_local=True)
    first.abort()
    other = await clients.connect(mosquitto.mqtt, "speaks")
    await other.publish("stays", b"kept", 1, properties=Properties(content_type="text/plain"))
    again = await clients.connect(mosquitto.mqtt, "stays", clean_start=False, session_expiry=60)
    assert again.connack is not None
    assert again.connack.session_present
    delivery = (await again.publishes(1))[0]
    assert delivery.properties == Properties(content_type="text/plain")
    await again.unsubscribe("stays")


async def test_abort_lets_the_will_go_and_disconnect_does_not(mosquitto: Mosquitto, clients: Clients) -> None:
    watcher = await clients.connect(mosquitto.mqtt, "watcher")
    await watcher.subscribe("wills", 1)
    for name in ("polite", "rude"):
        wire = await clients.connect(mosquitto.mqtt, name, will=WillMessage(topic="wills", payload=name.encode(), qos=1, retain=False))
        if name == "polite":
            await wire.disconnect()
        else:
            wire.abort()
    assert [packet.payload for packet in await watcher.publishes(1)] == [b"rude"]


async def test_takeover_of_a_3_1_1_connection_is_seen_as_a_close(mosquitto: Mosquitto, clients: Clients) -> None:
    first = await clients.connect(mosquitto.mqtt, "one", 4)
    await clients.connect(mosquitto.mqtt, "one", 4)
    await first.expect_disconnect(ReasonCode.SESSION_TAKEN_OVER)


async def test_bytes_go_as_they_are_and_one_by_one(mosquitto: Mosquitto, clients: Clients) -> None:
    wire = await clients.connect(mosquitto.mqtt, "bytes")
    for byte in b"\xc0\x00\xc0\x00":
        wire.write(bytes([byte]))
    await wire.expect(Pingresp)
    await wire.expect(Pingresp)
    wire.write(b"\xf3\xff\xff\xff\xff\x7f")
    await wire.closed()


async def test_what_does_not_come_is_said(mosquitto: Mosquitto, clients: Clients) -> None:
    wire = await clients.connect(mosquitto.mqtt, "waits")
    with pytest.raises(AssertionError, match="no Publish within"):
        await wire.expect(Publish, within=0.01)
    with pytest.raises(AssertionError, match="not closed within"):
        await wire.closed(within=0.01)
    await wire.subscribe("waits")
    await wire.publish("waits", b"?")
    with pytest.raises(AssertionError, match="unexpected"):
        await wire.silence()
