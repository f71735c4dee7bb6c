"""Rules in the tables: what changes of them do at once, and how they are read. They are rare beside deliveries, so nothing is gathered."""

from __future__ import annotations

from contextlib import closing
from typing import Final

from sqlalchemy import Connection, bindparam, delete, select

from bridges.database.rows import decode_letter, decode_rule, decode_rule_state, encode
from bridges.database.sql import Prepared, key_is, upsert
from bridges.database.tables import dead_letters, rule_states, rules
from schemas.rules import Rule, RuleState
from streams.store import DeadLetter, DropDeadLetters, DropRule, PutDeadLetter, PutRule, PutRuleState

PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page of dead letters ends with the one that takes it past this."""

_PUT_RULE: Final = upsert(rules, "detail")
_PUT_STATE: Final = upsert(rule_states, "detail")
_PUT_LETTER: Final = upsert(dead_letters, "detail")
_IS_THERE: Final = Prepared(select(rules.c.id).where(key_is(rules, "id")))
_DROP_RULE: Final = Prepared(delete(rules).where(key_is(rules, "id")))
_DROP_STATE: Final = Prepared(delete(rule_states).where(key_is(rule_states, "rule")))
_DROP_LETTERS: Final = Prepared(
    delete(dead_letters).where(key_is(dead_letters, "rule"), dead_letters.c.number.between(bindparam("first"), bindparam("last")))
)
_RULES: Final = Prepared(
    select(rules.c.detail, rule_states.c.detail)
    .select_from(rules.outerjoin(rule_states, rule_states.c.rule == rules.c.id))
    .order_by(rules.c.id)
)
_LETTERS: Final = Prepared(
    select(dead_letters.c.detail)
    .where(key_is(dead_letters, "rule"), dead_letters.c.number > bindparam("after"))
    .order_by(dead_letters.c.number)
    .limit(bindparam("count"))
)
_LAST: Final = 2**62


def put_rule(connection: Connection, change: PutRule) -> None:
    _PUT_RULE.run(connection, id=change.rule.id, detail=encode(change.rule))


def drop_rule(connection: Connection, change: DropRule) -> None:
    _DROP_RULE.run(connection, the_id=change.id)
    _DROP_STATE.run(connection, the_rule=change.id)
    _DROP_LETTERS.run(connection, the_rule=change.id, first=0, last=_LAST)


def put_rule_state(connection: Connection, change: PutRuleState) -> None:
    if _IS_THERE.first(connection, the_id=change.rule) is not None:
        _PUT_STATE.run(connection, rule=change.rule, detail=encode(change.state))


def put_dead_letter(connection: Connection, change: PutDeadLetter) -> None:
    letter = change.letter
    if _IS_THERE.first(connection, the_id=letter.rule) is not None:
        _PUT_LETTER.run(connection, rule=letter.rule, number=letter.number, detail=encode(letter))


def drop_dead_letters(connection: Connection, change: DropDeadLetters) -> None:
    _DROP_LETTERS.run(connection, the_rule=change.rule, first=change.first, last=change.last)


def rules_all(connection: Connection) -> list[tuple[Rule, RuleState | None]]:
    return [(decode_rule(rule), None if state is None else decode_rule_state(state)) for rule, state in _RULES.all(connection)]


def letters_page(connection: Connection, rule: str, after: int, limit: int) -> list[DeadLetter]:
    found, size = [], 0
    with closing(_LETTERS.each(connection, the_rule=rule, after=after, count=limit)) as rows:
        for (detail,) in rows:
            found.append(decode_letter(detail))
            size += len(detail)
            if size > PAGE_BYTES:
                break
    return found
