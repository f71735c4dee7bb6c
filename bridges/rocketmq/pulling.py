"""One queue that is received: where its next pull begins, what an answer means, and the messages that wait for their reader. Without I/O.

source.py asks and keeps time; the answers' bytes are read by messages.py and incoming.py.
"""

from __future__ import annotations

import asyncio
from collections import deque

from bridges.rocketmq.codes import ResponseCode
from bridges.rocketmq.errors import Refused, RemotingError
from bridges.rocketmq.frames import Command
from bridges.rocketmq.incoming import incoming
from bridges.rocketmq.messages import decode_stored
from bridges.rocketmq.routes import Queue
from streams.backend import Incoming

WAITING_MESSAGES = 256
WAITING_BYTES = 1024 * 1024
"""A queue is pulled as long as less than this waits for the reader."""

PAUSE_FIRST, PAUSE_LONGEST = 0.2, 5.0


class Pulling:
    """``offset`` is where the next pull begins, None until it is known. ``asked``: a pull is under way."""

    __slots__ = ("asked", "at", "bytes", "name", "offset", "pause", "queue", "retry_at", "skipped", "waiting")

    def __init__(self, queue: Queue, offset: int | None) -> None:
        self.queue = queue
        self.name = queue.name
        self.offset = offset
        self.waiting: deque[tuple[int, Incoming]] = deque()
        self.bytes = 0
        self.asked: asyncio.Future[Command] | None = None
        self.at = 0.0
        self.pause = PAUSE_FIRST
        self.retry_at = 0.0
        self.skipped = 0

    @property
    def wants(self) -> bool:
        """Whether there is room for another pull's messages."""
        return self.asked is None and self.offset is not None and len(self.waiting) < WAITING_MESSAGES and self.bytes < WAITING_BYTES

    def fail(self, now: float) -> None:
        self.retry_at = now + self.pause
        self.pause = min(self.pause * 2, PAUSE_LONGEST)

    def answered(self, answer: Command, topic: str, tags: frozenset[str]) -> None:
        """Take an answer in. RemotingError or Refused where it is none; then nothing has changed."""
        if answer.code == ResponseCode.SUCCESS:
            following = _number(answer, "nextBeginOffset")
            asked = self.offset or 0
            for stored in decode_stored(answer.body):
                message = incoming(stored, topic, self.name)
                # Brokers compare hashes of tags, and start a stored batch at its beginning.
                if message.offset >= asked and (not tags or message.tag in tags):
                    self.waiting.append((stored.size, message))
                    self.bytes += stored.size
            self.offset = following
        elif answer.code in (ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY):
            self.offset = _number(answer, "nextBeginOffset")
        elif answer.code == ResponseCode.PULL_OFFSET_MOVED:
            self._moved(answer)
        else:
            raise Refused(self.queue.broker, answer.code, answer.remark, retryable=answer.code != ResponseCode.SUBSCRIPTION_PARSE_FAILED)
        self.pause = PAUSE_FIRST

    def _moved(self, answer: Command) -> None:
        """The broker has no message there: it was removed, or the queue is another than it was, or an operator has reset the group.

        A queue that is shorter than we were in it was made anew: what is in it was not received yet.
        """
        asked, following = self.offset or 0, _number(answer, "nextBeginOffset")
        if asked > _number(answer, "maxOffset"):
            following = _number(answer, "minOffset")
        self.skipped += max(0, following - asked)
        self.offset = following


def _number(answer: Command, name: str) -> int:
    try:
        number = int(answer.fields[name])
    except (KeyError, ValueError) as error:
        raise RemotingError(f"a pull's answer has no {name}") from error
    if number < 0:
        raise RemotingError(f"a pull's answer has {name}={number}")
    return number
