"""What nodes ask each other, in the tables, inside the caller's transaction. See ``streams.cluster``; cluster.py is the caller.

Nobody waits for anybody here, since the same transactions carry sessions and messages: rows that another transaction has hold of are
left to the next one that sweeps. An answer to a question that is being withdrawn may so be left over; it goes by its time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, delete, exists, func, select, tuple_

from bridges.database.membership import Told, all_nodes, clock
from bridges.database.sql import Prepared, key_is, upsert
from bridges.database.tables import answers, questions
from streams.cluster import ANSWER, ASK, KEPT_MS, QUESTIONS, Answer, NodeState, Notice, Question
from streams.store import Refused

TOO_MANY_QUESTIONS: Final = "too many questions at a time"


def _drop_free(table: Table, *where: Any) -> Prepared:
    key = list(table.primary_key)
    return Prepared(delete(table).where(tuple_(*key).in_(select(*key).where(*where).with_for_update(skip_locked=True))))


_COUNT: Final = Prepared(select(func.count()).where(key_is(questions, "epoch")))
_ADD: Final = upsert(questions)
_UNTIL: Final = Prepared(select(questions.c.until).where(key_is(questions, "epoch", "number")))
_MINE: Final = (answers.c.epoch == questions.c.epoch, answers.c.number == questions.c.number, answers.c.node_epoch == bindparam("node"))
_ASKED: Final = Prepared(
    select(questions.c.epoch, questions.c.number, questions.c.kind, questions.c.body)
    .where(questions.c.epoch != bindparam("node"), questions.c.until > bindparam("now"), ~exists(select(answers.c.number).where(*_MINE)))
    .order_by(questions.c.epoch, questions.c.number)
)
_ANSWER: Final = upsert(answers)
_ANSWERS: Final = (
    select(answers.c.node_epoch, answers.c.body)
    .where(key_is(answers, "epoch", "number"), answers.c.node_epoch.not_in(bindparam("known", expanding=True)))
    .order_by(answers.c.node_epoch)
)
_TABLES: Final = (questions, answers)
_WITHDRAW: Final = [_drop_free(table, key_is(table, "epoch", "number")) for table in _TABLES]
_OF_NODE: Final = [_drop_free(table, key_is(table, "epoch")) for table in _TABLES]
_OLD: Final = [_drop_free(table, table.c.until <= bindparam("before")) for table in _TABLES]


def ask(connection: Connection, told: Told, question: Question, within_ms: int) -> list[NodeState] | Refused:
    now = clock(connection)
    for drop in _OLD:
        drop.run(connection, before=now - KEPT_MS)
    if _COUNT.number(connection, the_epoch=question.epoch) >= QUESTIONS:
        return Refused(TOO_MANY_QUESTIONS)
    others = [node for node in all_nodes(connection) if node.alive and node.epoch != question.epoch]
    if others:
        _ADD.run(connection, epoch=question.epoch, number=question.number, kind=question.kind, body=question.body, until=now + within_ms)
        told[Notice(ASK, str(question.epoch))] = None
    return others


def asked(connection: Connection, epoch: int) -> list[Question]:
    return [Question(*row) for row in _ASKED.all(connection, node=epoch, now=clock(connection))]


def answer(connection: Connection, told: Told, question: Question, given: Answer) -> bool:
    until = _UNTIL.number(connection, the_epoch=question.epoch, the_number=question.number)
    if until <= clock(connection):
        return False
    row = {"epoch": question.epoch, "number": question.number, "node_epoch": given.epoch, "body": given.body, "until": until}
    if not _ANSWER.run(connection, **row):
        return False
    told[Notice(ANSWER, f"{question.epoch} {question.number}")] = None
    return True


def answers_to(connection: Connection, question: Question, known: Collection[int]) -> list[Answer]:
    """Not read again, since an answer may be large."""
    rows = connection.execute(_ANSWERS, {"the_epoch": question.epoch, "the_number": question.number, "known": list(known)}).all()
    return [Answer(epoch, body) for epoch, body in rows]


def withdraw(connection: Connection, question: Question) -> None:
    for drop in _WITHDRAW:
        drop.run(connection, the_epoch=question.epoch, the_number=question.number)


def forget_node(connection: Connection, epoch: int) -> None:
    """What a node had asked that is buried."""
    for drop in _OF_NODE:
        drop.run(connection, the_epoch=epoch)
