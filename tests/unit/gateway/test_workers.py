"""The supervisor of workers: what each worker is told, which ports are held, who is started again when, and what it all comes to."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import signal
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway import workers
from gateway.commands.endpoint import Rendezvous, find, write_rendezvous
from gateway.commands.errors import CommandError
from gateway.transports.endpoints import ListenerSpec, listener_specs
from gateway.transports.sockets import bind
from gateway.worker import hand_over
from gateway.workers import FIRST_PAUSE, LONGEST_PAUSE, STEADY, STOP_WITHIN, Supervisor, hold_ports, ready_line, worker_settings
from schemas.connections import ConnectionSettings
from schemas.errors import StartError
from schemas.identities import Secret
from schemas.settings import Address, NodeSettings, ProxySettings, Settings
from tests.support.still_loop import StillLoop

FREE = Address("127.0.0.1", 0)
TWO = NodeSettings(id="n", many=True, workers=2)


# What each is told


def test_a_worker_has_an_id_a_folder_and_an_http_port_of_its_own_and_the_one_key_file() -> None:
    settings = Settings(data=Path("d"), http=Address("h", 8080), node=TWO)
    told = [worker_settings(settings, number) for number in (1, 2)]
    assert [(each.node.id, each.data, each.http.port) for each in told] == [("n-1", Path("d/worker-1"), 8080), ("n-2", Path("d/worker-2"), 8081)]
    assert {each.seal_file for each in told} == {Path("d/seal.key")}
    assert all(spec.shared for spec in listener_specs(told[1]))
    assert worker_settings(Settings(http=FREE, node=TWO), 2).http == FREE
    assert not listener_specs(Settings())[0].shared, "who has a port for itself shares it with nobody"


def test_settings_are_handed_over_whole_and_only_there() -> None:
    connection = ConnectionSettings(name="c", kind="kafka", address=("a:1",), password=Secret("hush"))
    settings = Settings(node=TWO, proxy=(ProxySettings(listener=FREE, networks=(ip_network("10.0.0.0/8"),)),), connections=(connection,))
    pipe = io.BytesIO()
    hand_over(settings, pipe)
    got = pickle.loads(pipe.getvalue())  # noqa: S301 - as the worker does
    assert got.connections[0].password.reveal() == "hush"
    assert (got.node, got.proxy) == (settings.node, settings.proxy)


def test_the_ready_line_has_once_what_is_shared_and_all_that_is_not() -> None:
    said = [{"mqtt": "h:1", "http": f"h:{port}", "roles": "gateway"} for port in (2, 3)]
    assert ready_line(said) == "ready mqtt=h:1 http=h:2,h:3 roles=gateway workers=2"


# Ports


async def test_ports_are_held_for_workers_alone() -> None:
    networks = (ip_network("10.0.0.0/8"),)
    settings = Settings(node=TWO, mqtt=(FREE, FREE), ws=(FREE,), proxy=(ProxySettings(listener=FREE, networks=networks),))
    found, held = await hold_ports(settings)
    try:
        ports = [address.port for address in (*found.mqtt, *found.ws)]
        assert 0 not in ports
        assert len(set(ports)) == 3
        assert {proxy.listener for proxy in found.proxy} == {*found.mqtt, *found.ws}, "port 0 was all of them"
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", ports[0]))
        listening = [sock for spec in listener_specs(found)[:1] for _ in range(2) for sock in await bind(spec)]
        for sock in listening:
            sock.listen()
        with socket.create_connection(("127.0.0.1", ports[0]), 5) as client:
            assert client.getpeername()[1] == ports[0]
        with pytest.raises(StartError, match=f"mqtt listener 127.0.0.1:{ports[0]}: another program uses it"):
            await bind(ListenerSpec("mqtt", "127.0.0.1", ports[0]))
        for sock in listening:
            sock.close()
    finally:
        for sock in held:
            sock.close()


async def test_a_port_that_somebody_shares_already_is_taken() -> None:
    """Another supervisor of this user, say: the system alone would let it have a part of our clients."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(StartError, match="another program uses it"):
            await hold_ports(Settings(node=TWO, mqtt=(FREE, Address("127.0.0.1", other.getsockname()[1]))))


# Processes


class FakeWorker:
    """``starts``: what each start comes to, None for one that serves."""

    def __init__(self, number: int, *starts: int | None) -> None:
        self.number = number
        self.starts = list(starts)
        self.ready = {"mqtt": "h:1", "http": f"h:{number}"}
        self.started: list[float] = []
        self.signals: list[int] = []
        self.heeds = (signal.SIGTERM, signal.SIGKILL)
        self.end = 0
        self._ended: asyncio.Future[int] | None = None

    async def start(self) -> int | None:
        loop = asyncio.get_running_loop()
        self.started.append(loop.time())
        self._ended = loop.create_future()
        code = self.starts.pop(0) if self.starts else None
        if code is not None:
            self.die(code)
        return code

    def die(self, code: int) -> None:
        assert self._ended is not None
        if not self._ended.done():
            self._ended.set_result(code)

    async def ended(self) -> int:
        return 0 if self._ended is None else await asyncio.shield(self._ended)

    def stop(self) -> None:
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if self._ended is not None and number in self.heeds:
            self.die(self.end if number == signal.SIGTERM else -number)


@pytest.fixture
def loop() -> Iterator[StillLoop]:
    made = StillLoop()
    yield made
    for task in asyncio.all_tasks(made):
        task.cancel()
    made.advance()
    made.close()


class Rig:
    def __init__(self, loop: StillLoop, monkeypatch: pytest.MonkeyPatch, *made: FakeWorker) -> None:
        self.loop = loop
        monkeypatch.setattr(workers, "Worker", lambda settings, number: made[number - 1])

        async def supervisor() -> Supervisor:
            return Supervisor(Settings(node=NodeSettings(id="n", many=True, workers=len(made))))

        self.supervisor = loop.finish(supervisor())
        self.running = loop.create_task(self.supervisor.run())
        loop.advance()

    def stop(self, seconds: float = 0.0) -> int:
        self.loop.call_soon(self.supervisor.stop)
        self.loop.advance(seconds)
        return self.running.result()


def test_it_says_that_all_serve_once_they_do_and_drains_them(
    loop: StillLoop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [FakeWorker(number) for number in (1, 2, 3)]
    rig = Rig(loop, monkeypatch, *made)
    assert capsys.readouterr().out == "ready mqtt=h:1 http=h:1,h:2,h:3 workers=3\n"
    assert rig.stop() == 0
    assert [worker.signals for worker in made] == [[signal.SIGTERM]] * 3


@pytest.mark.parametrize(("code", "comes_to"), [(2, 2), (1, 1), (-9, 1)])
def test_who_cannot_start_ends_the_others_too(
    loop: StillLoop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, comes_to: int
) -> None:
    made = [FakeWorker(1), FakeWorker(2, code)]
    rig = Rig(loop, monkeypatch, *made)
    assert rig.running.result() == comes_to
    assert made[0].signals == [signal.SIGTERM]
    assert capsys.readouterr().out == ""


def test_the_first_makes_what_all_share_before_the_others_start(loop: StillLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [FakeWorker(1, 2), FakeWorker(2)]
    assert Rig(loop, monkeypatch, *made).running.result() == 2
    assert made[1].started == []


def test_who_died_is_started_again_after_pauses_that_grow_up_to_a_bound(loop: StillLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    dying, other = FakeWorker(1, None, *[1] * 9), FakeWorker(2)
    rig = Rig(loop, monkeypatch, dying, other)
    dying.die(-9)
    loop.advance(10 * LONGEST_PAUSE)
    pauses = [later - earlier for earlier, later in zip(dying.started, dying.started[1:], strict=False)]
    assert pauses[:4] == pytest.approx([FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE])
    assert pauses[-2:] == pytest.approx([LONGEST_PAUSE, LONGEST_PAUSE])
    assert len(dying.started) == 11
    assert len(other.started) == 1
    loop.advance(STEADY)
    dying.die(-9)
    loop.advance(FIRST_PAUSE)
    assert len(dying.started) == 12, "it had served for long"
    assert rig.stop() == 0


def test_a_stop_while_one_waits_to_be_started_again_starts_nothing(loop: StillLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    dying, other = FakeWorker(1), FakeWorker(2)
    rig = Rig(loop, monkeypatch, dying, other)
    dying.die(-9)
    loop.advance(FIRST_PAUSE / 2)
    assert rig.stop() == 1, "it had not drained"
    assert len(dying.started) == 1


def test_who_does_not_drain_in_time_is_killed(loop: StillLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, other = FakeWorker(1), FakeWorker(2)
    stuck.heeds = (signal.SIGKILL,)
    rig = Rig(loop, monkeypatch, stuck, other)
    loop.call_soon(rig.supervisor.stop)
    loop.advance(STOP_WITHIN - 0.1)
    assert not rig.running.done()
    loop.advance(0.2)
    assert rig.running.result() == 1
    assert stuck.signals == [signal.SIGTERM, signal.SIGKILL]


@pytest.mark.parametrize(("end", "comes_to"), [(-signal.SIGTERM, 0), (130, 0), (1, 1)])
def test_a_stop_counts_those_as_stopped_who_had_not_begun_to_serve(loop: StillLoop, monkeypatch: pytest.MonkeyPatch, end: int, comes_to: int) -> None:
    made = [FakeWorker(1), FakeWorker(2)]
    made[1].end = end
    assert Rig(loop, monkeypatch, *made).stop() == comes_to


def test_a_stop_while_the_first_starts_waits_for_it_alone(loop: StillLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, other = FakeWorker(1), FakeWorker(2)
    start, go = slow.start, asyncio.Event()

    async def slowly() -> int | None:
        code = await start()
        await go.wait()
        return code

    monkeypatch.setattr(slow, "start", slowly)
    rig = Rig(loop, monkeypatch, slow, other)
    loop.call_soon(rig.supervisor.stop)
    loop.advance(1)
    assert not rig.running.done()
    loop.call_soon(go.set)
    loop.advance()
    assert rig.running.result() == 0
    assert (slow.signals, other.started) == ([signal.SIGTERM], [])


# Commands


def test_commands_ask_a_worker_that_serves(tmp_path: Path) -> None:
    def asked() -> str:
        return find(tmp_path, None, "key", {"SLUICEWAY_ACCESS_SECRET": "s"}).url

    with pytest.raises(CommandError, match="no gateway runs on "):
        asked()
    dead = subprocess.Popen(["true"])
    dead.wait()
    for number, pid in ((1, dead.pid), (2, os.getpid())):
        (tmp_path / f"worker-{number}").mkdir()
        write_rendezvous(tmp_path / f"worker-{number}", Rendezvous(pid, f"http://worker-{number}"))
    assert asked() == "http://worker-2"
    write_rendezvous(tmp_path, Rendezvous(os.getpid(), "http://itself"))
    assert asked() == "http://itself"
