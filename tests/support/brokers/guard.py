"""Ends lasting servers when the test run is gone, however it went: a process of its own reads a pipe, and the pipe ends with pytest.

The kernel's parent-death signal is no choice: it follows the thread that started a child, and tests restart brokers from threads.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys

import psutil

_guards: list[subprocess.Popen[bytes]] = []
"""One, from the first server on."""


def watch(pid: int) -> None:
    """Kill it when this process has ended."""
    if not _guards:
        _guards.append(subprocess.Popen([sys.executable, "-I", __file__], stdin=subprocess.PIPE, start_new_session=True))
    pipe = _guards[0].stdin
    assert pipe is not None
    pipe.write(f"{pid}\n".encode())
    pipe.flush()


def dismiss() -> None:
    """All that is watched is killed now."""
    while _guards:
        guard = _guards.pop()
        guard.communicate(timeout=10)


def main() -> None:
    """psutil tells a process from a later one of the same number."""
    watched: list[psutil.Process] = []
    for line in sys.stdin:
        with contextlib.suppress(psutil.NoSuchProcess):
            watched.append(psutil.Process(int(line)))
    for process in watched:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    main()
