"""A process that runs out of open files while clients connect; test_exhaustion.py starts it and reads its lines.

It serves with few files allowed, takes all that are left, says how much CPU it burnt while clients knocked, gives the files
back, and serves on until its input ends. Arguments: the loop, the kind of listener, certificate, key.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from pathlib import Path

import uvloop

from gateway.transports.listeners import ListenerSpec, start_listeners
from schemas.limits import Limits
from schemas.settings import TlsSettings
from tests.unit.gateway.transports.fakes import Recorder

FILES = 64
KNOCKING = 0.8


def connection(spec: ListenerSpec) -> Recorder:
    recorder = Recorder(spec)

    def echo(data: bytes) -> None:
        assert recorder.transport is not None
        recorder.transport.write(data)

    recorder.on_data = echo
    return recorder


async def serve(kind: str, certificate: str, key: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    tls = TlsSettings(certificate=Path(certificate), key=Path(key))
    spec = ListenerSpec("mqtts" if kind == "mqtts" else "mqtt", "127.0.0.1", 0)
    listeners = await start_listeners([spec], connection, tls, Limits(), occupied=lambda: 0, refused=lambda _: None)
    say("port", listeners.addresses[0].port)
    await hears("exhaust")
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        say("exhausted", len(taken))
    burnt, begun = time.process_time(), time.monotonic()
    await asyncio.sleep(KNOCKING)
    say("load", round((time.process_time() - burnt) / (time.monotonic() - begun), 3))
    for file in taken:
        os.close(file)
    say("released", len(taken))
    await hears("")
    await listeners.close()


def say(word: str, value: object) -> None:
    print(word, value, flush=True)


async def hears(word: str) -> None:
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    assert line.strip() == word, line


if __name__ == "__main__":
    factory = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}[sys.argv[1]]
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(*sys.argv[2:]))
