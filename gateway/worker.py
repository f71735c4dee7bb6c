"""One of the processes of `run --workers N`: reads its settings from standard input, where its supervisor writes them, and serves.

Standard input stays open for as long as the supervisor lives; when it ends, so does this. workers.py is the other side.
"""

from __future__ import annotations

import pickle
import sys
from typing import IO

from gateway import logs
from gateway.cli import answering
from schemas.settings import Settings


def hand_over(settings: Settings, to: IO[bytes]) -> None:
    """The supervisor's side: secrets of settings are in no argument and no variable."""
    pickle.dump(settings, to)
    to.flush()


def _run() -> int:
    settings: Settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own parent has written it
    logs.configure(settings.logging.level, settings.logging.format)
    from gateway.app import run

    return run(settings, sys.stdin.fileno())


if __name__ == "__main__":
    sys.exit(answering(_run))
