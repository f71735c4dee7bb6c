"""What nodes ask each other through the store: who has to answer, who has, what is refused, and that nothing of it stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.cluster import ANSWER, ANSWER_BYTES, ASK, LEASE_MS, POLL, QUESTION_BYTES, QUESTIONS, Answer, NodeState, Notice, Question
from streams.store import Refused, Store
from tests.contract.store_making import KINDS, made

WITHIN = 60_000
OVER = -20_000
"""A time so long past that the next question sweeps what had it."""


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with made(request.param, tmp_path) as opened:
        yield opened


async def _join(store: Store, *names: str, lease_ms: int = LEASE_MS) -> list[int]:
    epochs = []
    for name in names:
        epochs.append(await store.next_epoch())
        assert isinstance(await store.cluster.join(name, epochs[-1], "", lease_ms), NodeState)
    return epochs


async def _ask(store: Store, question: Question, within_ms: int = WITHIN) -> list[int]:
    others = await store.cluster.ask(question, within_ms)
    assert not isinstance(others, Refused)
    return [node.epoch for node in others]


async def test_all_others_that_live_are_asked_and_their_answers_are_there(store: Store) -> None:
    a, b, c = await _join(store, "a", "b", "c")
    await _join(store, "dead", lease_ms=0)
    question = Question(a, 7, "x", b"\x00body")
    assert await _ask(store, question) == [b, c]
    assert await store.cluster.asked(a) == []
    assert await store.cluster.asked(b) == await store.cluster.asked(c) == [question]
    assert await store.cluster.answers(question) == []
    assert await store.cluster.answer(question, Answer(c, b"\xff"))
    assert await store.cluster.asked(c) == []
    assert await store.cluster.asked(b) == [question]
    assert await store.cluster.answer(question, Answer(b, b""))
    assert await store.cluster.answers(question) == [Answer(b, b""), Answer(c, b"\xff")]
    assert await store.cluster.answers(question, [c, a]) == [Answer(b, b"")]
    await store.cluster.withdraw(question)
    assert await store.cluster.answers(question) == await store.cluster.asked(b) == []


async def test_questions_of_several_don_t_mix(store: Store) -> None:
    a, b, c = await _join(store, "a", "b", "c")
    asked = [Question(a, 1, "x"), Question(a, 2, "y"), Question(b, 1, "z")]
    for question in asked:
        await _ask(store, question)
    assert await store.cluster.asked(c) == asked
    assert await store.cluster.asked(b) == asked[:2]
    for question in asked:
        assert await store.cluster.answer(question, Answer(c, question.kind.encode()))
    await store.cluster.withdraw(asked[0])
    assert [await store.cluster.answers(question) for question in asked] == [[], [Answer(c, b"y")], [Answer(c, b"z")]]


async def test_an_answer_is_taken_once_and_while_somebody_waits(store: Store) -> None:
    a, b = await _join(store, "a", "b")
    question, late, gone = Question(a, 1, "x"), Question(a, 2, "x"), Question(a, 3, "x")
    await _ask(store, question)
    assert await store.cluster.answer(question, Answer(b, b"first"))
    assert not await store.cluster.answer(question, Answer(b, b"second"))
    assert await store.cluster.answers(question) == [Answer(b, b"first")]
    await _ask(store, late, 0)
    assert await store.cluster.asked(b) == []
    await _ask(store, gone)
    await store.cluster.withdraw(gone)
    for over in (late, gone):
        assert not await store.cluster.answer(over, Answer(b, b"late"))
        assert await store.cluster.answers(over) == []


async def test_who_is_alone_asks_nobody(store: Store) -> None:
    (a,) = await _join(store, "a")
    assert await _ask(store, Question(a, 1, "x")) == []
    (b,) = await _join(store, "b")
    assert await store.cluster.asked(b) == []


async def test_a_node_has_so_many_questions_at_a_time(store: Store) -> None:
    a, b = await _join(store, "a", "b")
    for number in range(QUESTIONS):
        await _ask(store, Question(a, number, "x"))
    assert isinstance(await store.cluster.ask(Question(a, 99, "x"), WITHIN), Refused)
    assert len(await store.cluster.asked(b)) == QUESTIONS
    assert await _ask(store, Question(b, 1, "x")) == [a]
    await store.cluster.withdraw(Question(a, 0, "x"))
    assert await _ask(store, Question(a, 99, "x")) == [b]


async def test_what_nobody_withdrew_goes_with_the_next_question_or_a_burial(store: Store) -> None:
    a, b = await _join(store, "a", "b")
    for number in range(QUESTIONS):
        await _ask(store, Question(a, number, "x"), OVER)
    assert await _ask(store, Question(a, 99, "x")) == [b], "as many again"
    assert await store.cluster.answer(Question(a, 99, "x"), Answer(b, b"1"))
    await store.cluster.leave(a)
    assert await store.cluster.bury(a)
    assert await store.cluster.answers(Question(a, 99, "x")) == await store.cluster.asked(b) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_those_who_answer_and_those_who_wait_are_told(kind: str, tmp_path: Path) -> None:
    async with made(kind, tmp_path) as store:
        a, b = await _join(store, "a", "b")
        heard: asyncio.Queue[Notice] = asyncio.Queue()
        stop = store.cluster.listen(heard.put_nowait)

        async def until(wanted: Notice) -> None:
            async with asyncio.timeout(5):
                while await heard.get() != wanted:
                    pass

        if kind == "postgresql":
            await until(POLL)  # from then on it is heard
        question = Question(a, 5, "x")
        await _ask(store, question)
        await until(Notice(ASK, str(a)))
        assert await store.cluster.answer(question, Answer(b, b""))
        await until(Notice(ANSWER, f"{a} 5"))
        stop()


async def test_large_answers_are_kept_whole_and_larger_ones_are_none(store: Store) -> None:
    a, b = await _join(store, "a", "b")
    question, body = Question(a, 1, "x", b"q" * QUESTION_BYTES), bytes(range(256)) * (ANSWER_BYTES // 256)
    await _ask(store, question)
    assert await store.cluster.asked(b) == [question]
    assert await store.cluster.answer(question, Answer(b, body))
    assert await store.cluster.answers(question) == [Answer(b, body)]
    with pytest.raises(ValueError, match="at most"):
        Answer(b, body + b"x")
    with pytest.raises(ValueError, match="at most"):
        Question(a, 1, "x", b"q" * (QUESTION_BYTES + 1))
