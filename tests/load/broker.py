"""A bench for load figures: brokers in fresh folders, mqload runs against them, their memory, and the disk's fdatasync."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.gateway import AccessKey, Endpoint, Gateway
from tests.support.mosquitto import Mosquitto
from tests.support.process import Process

HELD = 4.0
"""Seconds for which idle connections are held after all are there: longer than anybody looks at them."""
Result = dict[str, Any]
"""What mqload printed: its keys are named where they are read."""


class Bench:
    def __init__(self, folder: Path, mqload: Path, rounds: int, seconds: float) -> None:
        self.folder = folder
        self.rounds = rounds
        self.seconds = seconds
        self._mqload = mqload
        self._processes: list[Process] = []

    def gateway(self, *, anonymous: bool = True, config: str = "") -> Gateway:
        gateway = Gateway(self.folder / f"gateway{len(self._processes)}", anonymous=anonymous, config=config)
        self._processes.append(gateway)
        return gateway.start()

    def mosquitto(self) -> Mosquitto:
        mosquitto = Mosquitto(self.folder / f"mosquitto{len(self._processes)}")
        self._processes.append(mosquitto)
        return mosquitto.start()

    def close(self) -> None:
        for process in self._processes:
            process.kill()

    def command(self, endpoint: Endpoint, mode: str, *flags: str, seconds: float | None = None) -> list[str]:
        measured = self.seconds if seconds is None else seconds
        return [str(self._mqload), "-addr", str(endpoint), "-mode", mode, "-seconds", str(measured), *flags]

    @contextmanager
    def holding(self, endpoint: Endpoint, connections: int, *flags: str) -> Iterator[str]:
        """So many connections, idle; what mqload said when all were there."""
        line = self.command(endpoint, "connect", "-conns", str(connections), *flags, seconds=HELD)
        child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            said = child.stdout.readline()
            time.sleep(2.0)
            yield said
        finally:
            child.kill()
            child.communicate()

    def load(self, endpoint: Endpoint, mode: str, *flags: str, seconds: float | None = None) -> Result:
        done = subprocess.run(self.command(endpoint, mode, *flags, seconds=seconds), capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0 or not done.stdout:
            died = "; ".join(f"{process.name} ended with {process.exit_code}" for process in self._processes if not process.alive)
            return {"error": f"{done.stderr.strip()[-300:]} {died}".strip()}
        result: Result = json.loads(done.stdout)
        return result


def key_flags(key: AccessKey) -> list[str]:
    """Signature login, which mqload signs for each client id."""
    return ["-user", f"Signature|{key.id}|{key.instance}", "-secret", key.secret]


def memory(process: Process) -> int:
    """Resident bytes."""
    return int(psutil.Process(process.pid).memory_info().rss)


def processor_seconds(process: Process) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def fdatasync_ms(folder: Path, seconds: float, interval: float = 0.01) -> tuple[float, float]:
    """p50 and p99 in ms of writing 4 KiB and fdatasync on the disk of ``folder``, spread over the time that a load runs."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    path = folder / "fdatasync"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.perf_counter()
            os.write(file, bytes(4096))
            os.fdatasync(file)
            taken.append(time.perf_counter() - start)
            time.sleep(interval)
    finally:
        os.close(file)
        path.unlink()
    quantiles = statistics.quantiles(taken, n=100)
    return quantiles[49] * 1000, quantiles[98] * 1000
