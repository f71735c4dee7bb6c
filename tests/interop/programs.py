"""The client programs of the matrix: how each is started for a job, and what to install when one is missing."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.jobs import Job, Message
from tests.support.mosquitto import executable
from tests.support.node import install_mqttjs, node_and_npm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLIENTS = Path(__file__).parent / "clients"
WITHIN = 10.0
"""Seconds for a program to get anywhere."""
LINE_BYTES = 4 * 1024 * 1024

Command = tuple[Sequence[str], bytes]
"""Arguments, and what goes to standard input."""


def _python(module: str) -> Callable[[Job], list[Command]]:
    def commands(job: Job) -> list[Command]:
        if importlib.util.find_spec(module) is None:
            raise FileNotFoundError(f"{module} is not installed: pip install -e '.[test]'")
        return [([sys.executable, str(CLIENTS / f"{module}_client.py"), job.to_json()], b"")]

    return commands


def _paho(job: Job) -> list[Command]:
    if importlib.util.find_spec("paho") is None:
        raise FileNotFoundError("paho is not installed: pip install paho-mqtt")
    return [([sys.executable, str(CLIENTS / "paho_client.py"), job.to_json()], b"")]


def _mqttjs(job: Job) -> list[Command]:
    node, _ = node_and_npm()
    return [([str(node), str(CLIENTS / "mqttjs_client.mjs"), job.to_json(), str(install_mqttjs())], b"")]


def _mosquitto(job: Job) -> list[Command]:
    """mosquitto_sub and mosquitto_pub; one mosquitto_pub a payload, because it reads several from text lines only."""
    flags = ["-h", job.host, "-p", str(job.port), "-t", job.topic, "-q", str(job.qos), "-i", job.client_id]
    flags += ["-V", "mqttv5" if job.version == 5 else "mqttv311"]
    if job.will is not None:
        flags += ["--will-topic", job.will.topic, "--will-payload", job.will.payload, "--will-qos", str(job.will.qos)]
    if job.role == "publish":
        flags += ["-r"] if job.retain else []
        return [([executable("mosquitto_pub"), *flags, "-s" if payload else "-n"], bytes.fromhex(payload)) for payload in job.payloads]
    if not job.clean:
        flags += ["-c", *(["-x", "3600"] if job.version == 5 else [])]
    if job.role == "subscribe":
        flags += ["-C", str(job.count)] if job.count else ["-E"]
    form = '{"topic":"%t","payload":"%x","qos":%q,"retain":%r}'
    return [(["stdbuf", "-oL", executable("mosquitto_sub"), *flags, "-d", "-F", form], b"")]


@dataclass(frozen=True)
class Client:
    name: str
    commands: Callable[[Job], list[Command]]
    versions: tuple[int, ...] = (4, 5)
    transports: tuple[str, ...] = ("tcp",)


MATRIX = {
    client.name: client
    for client in (
        Client("mosquitto", _mosquitto),
        Client("paho", _paho, transports=("tcp", "ws")),
        Client("aiomqtt", _python("aiomqtt")),
        Client("gmqtt", _python("gmqtt")),
        Client("amqtt", _python("amqtt"), versions=(4,)),
        Client("mqttjs", _mqttjs, transports=("tcp", "ws")),
    )
}


class Program:
    """A client program at work on one job."""

    def __init__(self, job: Job, child: asyncio.subprocess.Process) -> None:
        self._job = job
        self._child = child

    async def ready(self) -> None:
        await self._until(lambda line: line == "ready" or line.startswith("Subscribed"))

    async def message(self) -> Message:
        return Message.parse(await self._until(lambda line: line.startswith("{")))

    async def messages(self, count: int) -> list[Message]:
        return [await self.message() for _ in range(count)]

    async def _until(self, wanted: Callable[[str], bool]) -> str:
        assert self._child.stdout is not None
        async with asyncio.timeout(WITHIN):
            while line := (await self._child.stdout.readline()).decode().strip():
                if wanted(line):
                    return line
        raise AssertionError(f"{self._job.role} ended with {await self._child.wait()} too early: {await self._complaint()}")

    async def ended(self) -> None:
        """The job is done and the program said so."""
        code = await asyncio.wait_for(self._child.wait(), WITHIN)
        assert code == 0, f"{self._job.role} ended with {code}: {await self._complaint()}"

    async def kill(self) -> None:
        if self._child.returncode is None:
            self._child.kill()
        await self._child.communicate()

    async def _complaint(self) -> str:
        assert self._child.stderr is not None
        return (await self._child.stderr.read()).decode(errors="replace")[-2000:]


def commands_of(client: str, job: Job) -> list[Command]:
    try:
        return MATRIX[client].commands(job)
    except FileNotFoundError as missing:
        pytest.fail(str(missing), pytrace=False)


@asynccontextmanager
async def running(client: str, job: Job) -> AsyncIterator[Program]:
    """A subscriber at work; killed at the end, whatever happened."""
    ((arguments, _),) = commands_of(client, job)
    child = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, limit=LINE_BYTES)
    program = Program(job, child)
    try:
        yield program
    finally:
        await program.kill()


async def run_publisher(client: str, job: Job) -> None:
    for arguments, body in commands_of(client, job):
        child = await asyncio.create_subprocess_exec(*arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        try:
            _, complaint = await asyncio.wait_for(child.communicate(body), WITHIN)
        except TimeoutError:
            child.kill()
            await child.communicate()
            raise AssertionError(f"{client} did not publish within {WITHIN} s") from None
        assert child.returncode == 0, f"{client} ended with {child.returncode}: {complaint.decode(errors='replace')[-2000:]}"


async def run_subscriber(client: str, job: Job) -> list[Message]:
    """Runs a ``subscribe`` job to its end."""
    async with running(client, job) as program:
        got = await program.messages(job.count)
        await program.ended()
        return got


def partner_of(client: str) -> str:
    """Who stands on the other side: mosquitto's programs, which start fastest, or paho's for themselves."""
    return "paho" if client == "mosquitto" else "mosquitto"


def towards(job: Job, client: str) -> Job:
    """The same job for another client, over TCP and in a version it speaks."""
    return replace(job, version=job.version if job.version in MATRIX[client].versions else 4, transport="tcp")
