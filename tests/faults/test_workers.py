"""`run --workers 2` as processes over one real Kafka and one real PostgreSQL: one port, kill -9 of a worker, a stop that sends clients away."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.protocol.packets import Disconnect, Packet
from gateway.worker import hand_over
from schemas.reasons import ReasonCode
from schemas.settings import Address, Settings
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.gateway import ROOT, STOP_WITHIN, Endpoint, Gateway, clean_environment, on_kafka
from tests.support.postgresql import fresh
from tests.support.process import ServerDied, free_port
from tests.support.wire import Clients, Wire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEPT = {"clean_start": False, "session_expiry": 3600}
BACK_WITHIN = 15.0
LIVE_WITHIN = 10.0


@pytest.fixture
def config(kafka: Kafka, tmp_path: Path) -> Callable[[str, str], str]:
    """The configuration of a node of its id, with more lines of `[node]`."""
    log, database = on_kafka(kafka.address, f"{unique('workers')}-"), fresh()
    return lambda name, more: (
        f'{log}[store]\nurl = "{database}"\n[keys]\nseal_file = "{tmp_path}/seal.key"\n[node]\nid = "{name}"\nmany = true\n{more}\n'
    )


def words_of(gateway: Gateway) -> dict[str, str]:
    (line,) = [line for line in gateway.out.read_text().splitlines() if line.startswith("ready ")]
    return dict(word.split("=", 1) for word in line.split()[1:])


def connections(http: str) -> float:
    """How many a worker has."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("sluiceway_connections "))


def pid_of(folder: Path) -> int:
    return int(json.loads((folder / "gateway.json").read_text())["pid"])


async def connect_to_both(gateway: Gateway, workers: Sequence[str], clients: Clients) -> list[Wire]:
    """The system spreads connections by chance: as many as it takes, ten at least."""
    wires: list[Wire] = []
    while len(wires) < 10 or not all([await asyncio.to_thread(connections, http) for http in workers]):
        assert len(wires) < 100
        wires.append(await clients.connect(gateway.mqtt, f"session-{len(wires)}", **KEPT))
        await wires[-1].subscribe("news", 1)
    return wires


async def test_workers_share_a_port_outlive_each_other_and_part_from_their_clients(
    config: Callable[[str, str], str], start_gateway: Callable[..., Gateway], clients: Clients, tmp_path: Path
) -> None:
    pair = await asyncio.to_thread(start_gateway, "pair", config=config("pair", "workers = 2"))
    words = words_of(pair)
    workers = words["http"].split(",")
    assert (words["workers"], len(set(workers))) == ("2", 2)
    assert pair.run("key", "list"), "commands find a worker by the folder of all"

    wires = await connect_to_both(pair, workers, clients)
    publisher = await clients.connect(pair.mqtt, "publisher")
    await publisher.publish("news", b"to all", 1)
    for wire in wires:
        assert [publish.payload for publish in await wire.publishes(1)] == [b"to all"]
    await publisher.disconnect()

    folder = pair.data / "worker-2"
    killed_at, dead = time.monotonic(), pid_of(folder)
    os.kill(dead, signal.SIGKILL)
    await asyncio.to_thread(pair.until, lambda: not psutil.pid_exists(dead), BACK_WITHIN, "the end of a worker")
    publisher = await clients.connect(pair.mqtt, "another publisher")
    await publisher.publish("news", b"meanwhile", 1)
    lost = [number for number, wire in enumerate(wires) if wire.lost.is_set()]
    assert 0 < len(lost) < len(wires)
    for number in lost:
        wires[number] = await clients.connect(pair.mqtt, f"session-{number}", **KEPT)
        assert wires[number].connack.session_present  # type: ignore[union-attr]
    for wire in wires:
        seen: list[bytes] = []
        while b"meanwhile" not in seen:
            seen += [publish.payload for publish in await wire.publishes(1, within=LIVE_WITHIN)]
    print(f"sessions of the killed worker lived again after {time.monotonic() - killed_at:.1f} s")
    await asyncio.to_thread(pair.until, lambda: pid_of(folder) != dead and serves(workers[1]), BACK_WITHIN, "a new worker on the same port")
    print(f"the killed worker served again after {time.monotonic() - killed_at:.1f} s")

    port = free_port()
    other = Gateway(tmp_path / "other", config=config("other", f'advertise = "127.0.0.1:{port}"'))
    other.endpoints["mqtt"] = Endpoint("127.0.0.1", port)
    await asyncio.to_thread(other.start)
    said: list[list[Packet]] = [[] for _ in wires]
    for wire, packets in zip(wires, said, strict=True):
        wire.on_packet = packets.append
    old = await clients.connect(pair.mqtt, "old", 4, clean_start=False)
    pair.signal(signal.SIGTERM)
    assert await asyncio.to_thread(pair.wait, STOP_WITHIN) == 0, pair.tail()
    for wire, packets in zip(wires, said, strict=True):
        await wire.closed()
        (packet,) = [packet for packet in packets if isinstance(packet, Disconnect)]
        assert packet.reason_code == ReasonCode.USE_ANOTHER_SERVER
        assert packet.properties is not None
        assert packet.properties.server_reference == f"127.0.0.1:{port}"
    await old.closed()
    for number in range(len(wires)):
        wire = await clients.connect(other.mqtt, f"session-{number}", **KEPT)
        assert wire.connack is not None
        assert wire.connack.session_present


def serves(http: str) -> bool:
    try:
        return connections(http) >= 0
    except OSError:
        return False


async def test_a_port_that_is_taken_starts_nothing_and_is_one_line(config: Callable[[str, str], str], clients: Clients, tmp_path: Path) -> None:
    first = Gateway(tmp_path / "first").start()
    pair = Gateway(tmp_path / "pair", config=config("pair", "workers = 2"))
    pair.endpoints["mqtt"] = first.mqtt
    with pytest.raises(ServerDied, match="ended with 2"):
        await asyncio.to_thread(pair.start)
    assert (
        pair.err.read_text()
        == f"sluiceway: mqtt listener {first.mqtt}: another program uses it; stop that program or choose another port (--mqtt HOST:PORT)\n"
    )


async def test_workers_that_cannot_start_end_the_supervisor_with_their_exit_code(
    config: Callable[[str, str], str], servers: None, tmp_path: Path
) -> None:
    (tmp_path / "seal.key").write_bytes(b"no key\n")
    (tmp_path / "seal.key").chmod(0o600)
    pair = Gateway(tmp_path / "pair", config=config("pair", "workers = 2"))
    with pytest.raises(ServerDied, match="ended with 2"):
        await asyncio.to_thread(pair.start)
    assert "is not a key file" in pair.err.read_text()
    assert not (pair.data / "worker-2").exists()


async def test_a_node_without_clients_and_api_opens_no_mqtt_listener_and_tells_of_itself_alone(
    config: Callable[[str, str], str], start_gateway: Callable[..., Gateway]
) -> None:
    gateway = await asyncio.to_thread(start_gateway, config=config("rest", 'roles = ["bridge", "router"]'))
    assert words_of(gateway).keys() == {"http", "roles", "durability"}
    assert words_of(gateway)["roles"] == "bridge,router"
    async with httpx.AsyncClient(base_url=f"http://{gateway.http}") as http:
        page = (await http.get("/metrics")).text
        assert 'sluiceway_role_nodes{role="gateway"} 0.0' in page
        assert 'sluiceway_role_nodes{role="router"} 1.0' in page
        assert [words.split(":")[0] for words in (await http.get("/readyz")).json()["missing"]] == [
            "no living node has the role gateway",
            "no living node has the role api",
        ]
        answer = await http.get("/api/v1/node")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_api")
    assert gateway.stop() == 0


async def test_a_worker_ends_with_its_supervisor(tmp_path: Path) -> None:
    """Whatever has ended that: a worker that nobody watches would keep the port."""
    free = Address("127.0.0.1", 0)
    command = (sys.executable, "-m", "gateway.worker")
    worker = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert worker.stdin is not None and worker.stdout is not None
        handed = io.BytesIO()
        hand_over(Settings(data=tmp_path, mqtt=(free,), http=free), handed)
        worker.stdin.write(handed.getvalue())
        assert (await worker.stdout.readline()).startswith(b"ready mqtt=127.0.0.1:")
        worker.stdin.close()
        assert await asyncio.wait_for(worker.wait(), STOP_WITHIN) == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
