"""QuerySessionByClientId among 100,000 known clients: ``python -m tests.load.queries``. Prints p50 and p99 of calls at a steady rate.

The statuses are written into the store of a gateway that is stopped; the calls are signed with Signature V1 and go out at their times, whether or not
the ones before are answered, over connections that stay open. Time counts from when a call was due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bridges.database.store import DatabaseStore
from schemas.presence import ClientStatus
from streams.status import StatusState, encode_status
from streams.store import PutStatus
from tests.load.broker import processor_seconds
from tests.support.gateway import AccessKey, Endpoint, Gateway
from tests.unit.gateway.openapi.requests import v1

CHANNEL = "0" * 31
STEP = 5_000


def name(number: int) -> str:
    return f"GID_load@@@device-{number:06d}"


async def fill(data: Path, count: int) -> None:
    """Every second one is online."""
    store, now = DatabaseStore.open(data / "state.db", asyncio.get_running_loop()), int(time.time() * 1000)
    state = encode_status(StatusState(now, now, CHANNEL + "1", "127.0.0.1:1"))
    for start in range(0, count, STEP):
        statuses = [ClientStatus(name(number), number % 2 == 0, CHANNEL + "1", "127.0.0.1:1", now) for number in range(start, start + STEP)]
        await store.commit([PutStatus(status, state) for status in statuses])
    await store.close()


class Caller:
    """One connection; its calls go one after the other."""

    def __init__(self, key: AccessKey) -> None:
        self._key = key
        self.due: asyncio.Queue[tuple[float, int] | None] = asyncio.Queue()
        self.took: list[float] = []
        self.wrong = 0

    async def run(self, http: Endpoint) -> None:
        reader, writer = await asyncio.open_connection(*http)
        while (job := await self.due.get()) is not None:
            due, number = job
            now = int(time.time() * 1000)
            fields = {"InstanceId": self._key.instance, "ClientId": name(number)}
            method, target, _, _ = v1(self._key.id, self._key.secret, "QuerySessionByClientId", now, **fields)
            writer.write(f"{method} {target} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            answer = json.loads(await reader.readexactly(length))
            self.took.append((asyncio.get_running_loop().time() - due) * 1000)
            self.wrong += answer.get("OnlineStatus") is not (number % 2 == 0)
        writer.close()
        await writer.wait_closed()


async def call(gateway: Gateway, key: AccessKey, known: int, rate: float, seconds: float, connections: int) -> tuple[list[float], int]:
    """What each call took, in ms, and how many answers were wrong."""
    callers = [Caller(key) for _ in range(connections)]
    loop, chosen = asyncio.get_running_loop(), random.Random(1)
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.run(gateway.http))
        start = loop.time()
        for number in range(int(rate * seconds)):
            due = start + number / rate
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            callers[number % connections].due.put_nowait((due, chosen.randrange(known)))
        for caller in callers:
            caller.due.put_nowait(None)
    return [took for caller in callers for took in caller.took], sum(caller.wrong for caller in callers)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.queries", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--goal", type=float, default=10.0, help="p99 in ms")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        gateway = Gateway(Path(scratch), anonymous=True)
        try:
            gateway.start()
            key = gateway.create_key()
            gateway.stop()
            asyncio.run(fill(gateway.data, arguments.clients))
            gateway.start()
            asyncio.run(call(gateway, key, arguments.clients, arguments.rate, 2.0, arguments.connections))
            before = processor_seconds(gateway)
            took, wrong = asyncio.run(call(gateway, key, arguments.clients, arguments.rate, arguments.seconds, arguments.connections))
            cost = (processor_seconds(gateway) - before) / len(took)
        finally:
            gateway.kill()
    quantiles = statistics.quantiles(took, n=100)
    p50, p99 = quantiles[49], quantiles[98]
    print(f"{len(took)} calls at {arguments.rate:g}/s among {arguments.clients} clients: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {max(took):.1f} ms")
    print(f"wrong {wrong}, {cost * 1e6:.0f} us of processor each")
    return 0 if p99 <= arguments.goal and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
