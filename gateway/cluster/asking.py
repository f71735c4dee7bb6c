"""A node asks all others, and answers them, by way of the store: nodes need no other path to each other.

Who asks waits until all have answered, or one has said what was wanted, and WITHIN seconds at most; who has not answered by then is
named. A notice that is lost costs a second (``POLL``). Knows no question: everywhere.py has those, and is the neighbour.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from schemas.errors import SluicewayError, StoreError
from streams.cluster import ANSWER, ANSWER_BYTES, ASK, POLL, QUESTION_BYTES, Answer, NodeState, Notice, Question
from streams.store import Refused

if TYPE_CHECKING:
    from gateway.node import Node

WITHIN: Final = 1.5
"""Seconds: more than ``POLL_SECONDS``, less than the lease of a node that stands still."""
LARGE: Final = "large"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"

logger = logging.getLogger(__name__)


class Unanswered(SluicewayError):
    """What was asked can't be said for all nodes now; the message names those that did not answer."""

    retryable = True


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """``problem`` is empty, or why there is no body."""

    body: bytes = b""
    problem: str = ""


class Replies(NamedTuple):
    """Bodies by node name; ``silent``: the names of living nodes without a reply. Where one reply was enough, others may be missing."""

    bodies: Mapping[str, bytes]
    silent: Sequence[str]


Answering = Callable[[bytes], Awaitable[bytes]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reply).decode


class Asking:
    """``answering``: by the kind of a question, what makes its answer here."""

    def __init__(self, node: Node, answering: Mapping[str, Answering]) -> None:
        self._node = node
        self._answering = answering
        self._numbers = itertools.count(1)
        self._news = asyncio.Event()
        self._waiting: dict[int, asyncio.Event] = {}
        self._asking: dict[tuple[str, bytes], asyncio.Task[Replies]] = {}
        """Who asks what is being asked waits for the same answers: no more of them than there are calls of the API."""
        self._at_work: dict[tuple[int, int], asyncio.Task[None]] = {}
        """Answers in the making: no more than ``QUESTIONS`` of a node."""

    # Answering

    async def run(self) -> None:
        """Answer for ever."""
        stop = self._node.store.cluster.listen(self._heard)
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                try:
                    questions = await self._node.store.cluster.asked(self._node.epoch)
                except StoreError as error:
                    logger.warning("questions-not-read error=%s", error)
                    continue
                for question in questions:
                    key = (question.epoch, question.number)
                    if key not in self._at_work:
                        task = self._at_work[key] = self._node.loop.create_task(self._answer(question))
                        task.add_done_callback(lambda _, key=key: self._at_work.pop(key))  # type: ignore[misc]
        finally:
            stop()
            for task in list(self._at_work.values()):
                task.cancel()

    def _heard(self, notice: Notice) -> None:
        if notice == POLL:
            self._news.set()
            for event in self._waiting.values():
                event.set()
        elif notice.topic == ASK:
            if notice.detail != str(self._node.epoch):
                self._news.set()
        elif notice.topic == ANSWER:
            epoch, _, number = notice.detail.partition(" ")
            if epoch == str(self._node.epoch) and int(number) in self._waiting:
                self._waiting[int(number)].set()

    async def _answer(self, question: Question) -> None:
        answering = self._answering.get(question.kind)
        reply = Reply(problem=UNKNOWN)  # a node of another version asks
        if answering is not None:
            try:
                reply = Reply(await answering(question.body))
            except SluicewayError as error:
                logger.warning("question-refused kind=%s error=%s", question.kind, error)
                reply = Reply(problem=FAILED)
            except Exception:
                logger.exception("question-failed kind=%s", question.kind)
                reply = Reply(problem=FAILED)
        body = _encode(reply)
        if len(body) > ANSWER_BYTES:
            body = _encode(Reply(problem=LARGE))
        try:
            await self._node.store.cluster.answer(question, Answer(self._node.epoch, body))
        except StoreError as error:
            logger.warning("answer-not-stored kind=%s error=%s", question.kind, error)

    # Asking

    async def ask(self, kind: str, body: bytes = b"", enough: Callable[[bytes], bool] = lambda body: False) -> Replies:
        """What all other nodes say; ``enough`` whether a reply's body makes all others needless. Unanswered, StoreError."""
        if len(body) > QUESTION_BYTES:
            raise Unanswered("this is too long to ask other nodes")
        task = self._asking.get((kind, body))
        if task is None:
            task = self._asking[kind, body] = self._node.loop.create_task(self._ask(kind, body, enough))
            task.add_done_callback(lambda task: self._asked(kind, body, task))
        return await asyncio.shield(task)

    def _asked(self, kind: str, body: bytes, task: asyncio.Task[Replies]) -> None:
        del self._asking[kind, body]
        if not task.cancelled():
            task.exception()  # those who waited may all have gone

    async def _ask(self, kind: str, body: bytes, enough: Callable[[bytes], bool]) -> Replies:
        node, question = self._node, Question(self._node.epoch, next(self._numbers), kind, body)
        deadline = node.loop.time() + WITHIN
        self._waiting[question.number] = asyncio.Event()
        others: list[NodeState] | Refused = []
        try:
            others = await node.store.cluster.ask(question, int(WITHIN * 1000))
            if isinstance(others, Refused):
                raise Unanswered(f"this node asks the others for too much at a time ({others.reason}): try again")
            return await self._gather(question, {other.epoch: other.node for other in others}, deadline, enough)
        finally:
            del self._waiting[question.number]
            if others:
                with suppress(StoreError):
                    await node.store.cluster.withdraw(question)

    async def _gather(self, question: Question, names: Mapping[int, str], deadline: float, enough: Callable[[bytes], bool]) -> Replies:
        news, replies = self._waiting[question.number], dict[int, Reply]()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while names.keys() - replies.keys() and not any(enough(reply.body) for reply in replies.values()):
                    await news.wait()
                    news.clear()
                    for answer in await self._node.store.cluster.answers(question, list(replies)):
                        replies[answer.epoch] = _decode(answer.body)
        large = [names[epoch] for epoch, reply in replies.items() if reply.problem == LARGE and epoch in names]
        if large:
            raise Unanswered(f"the answer of {', '.join(large)} is larger than {ANSWER_BYTES} bytes: ask for less at a time")
        bodies = {names[epoch]: replies[epoch].body for epoch in names if epoch in replies and not replies[epoch].problem}
        return Replies(bodies, [name for name in names.values() if name not in bodies])
