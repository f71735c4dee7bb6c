"""What each change does to the state in memory, one after the other. A table by type; store.py calls ``apply``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from schemas.sessions import (
    BoxState,
    DropEntry,
    DropReceived,
    DropSubscription,
    EndConnection,
    PutEntry,
    PutReceived,
    PutRetained,
    PutSubscription,
    RemoveSession,
    ReserveBlock,
    Resumed,
    SetEntry,
    TrimBox,
)
from streams.cluster import DOCUMENTS, NodeFence, Notice, PutRoute, Tell, TrimRoutes
from streams.memory.cluster import holds, put_route, trim_routes
from streams.memory.state import State
from streams.store import (
    BODY_MS,
    Change,
    CommitResult,
    DropChannel,
    DropDeadLetters,
    DropDocument,
    DropRule,
    FinishReplayed,
    PutChannel,
    PutDeadLetter,
    PutDocument,
    PutRule,
    PutRuleState,
    PutStatus,
    Stale,
)


def apply(state: State, changes: Sequence[Change]) -> CommitResult:
    """All changes but the stale ones, in order."""
    stale: dict[Stale, None] = {}
    trimmed: dict[int, int] = {}
    for change in changes:
        refused = _refused(state, change)
        if refused is not None:
            stale[refused] = None
        elif isinstance(change, TrimBox):
            count = _trim(state, change)
            if count:
                trimmed[change.box] = trimmed.get(change.box, 0) + count
        else:
            _APPLY[type(change)](state, change)
    return CommitResult(tuple(stale), tuple(sorted(trimmed.items())))


def _refused(state: State, change: Change) -> Stale | None:
    """An epoch of 0 guards nothing, but what a change is about has to be there."""
    if isinstance(change, DropEntry) and change.session:
        number, there = change.session, change.session in state.sessions and change.box in state.boxes
    elif isinstance(change, PutEntry | SetEntry | DropEntry | TrimBox):
        number, there = change.box, change.box in state.boxes
    elif isinstance(change, PutSubscription | DropSubscription | EndConnection | RemoveSession | ReserveBlock | Resumed):
        number, there = change.session, change.session in state.sessions
    elif isinstance(change, PutRoute | TrimRoutes):
        return None if holds(state.cluster, NodeFence(change.epoch)) else Stale(0, change.epoch)
    else:
        return None
    return None if there and change.epoch in (0, state.boxes[number].epoch) else Stale(number, change.epoch)


def _put_entry(state: State, change: PutEntry) -> None:
    entry, entries = change.entry, state.boxes[change.box].entries
    if entry.at not in entries:
        entries[entry.at] = entry
        state.bodies.setdefault(entry.record.id, entry.record.time + BODY_MS)


def _set_entry(state: State, change: SetEntry) -> None:
    entries = state.boxes[change.box].entries
    if change.at in entries:
        entries[change.at] = msgspec.structs.replace(entries[change.at], state=change.state, packet_id=change.packet_id)


def _drop_entry(state: State, change: DropEntry) -> None:
    state.boxes[change.box].entries.pop(change.at, None)


def _trim(state: State, change: TrimBox) -> int:
    box = state.boxes[change.box]
    queued = box.queued()
    excess = queued[: max(0, len(queued) - change.keep)]
    for entry in excess:
        del box.entries[entry.at]
    return len(excess)


def _finish_replayed(state: State, change: FinishReplayed) -> None:
    for number, box in state.boxes.items():
        session = state.sessions.get(number)
        if change.owner and (session is None or session.owner != change.owner or session.resuming):
            continue
        done = [at for at, entry in box.entries.items() if entry.state == BoxState.DONE and at.shard == change.upto.shard and at < change.upto]
        for at in done:
            del box.entries[at]


def _put_subscription(state: State, change: PutSubscription) -> None:
    state.sessions[change.session].subscriptions[change.subscription.filter] = change.subscription


def _drop_subscription(state: State, change: DropSubscription) -> None:
    state.sessions[change.session].subscriptions.pop(change.filter, None)


def _end_connection(state: State, change: EndConnection) -> None:
    session = state.sessions[change.session]
    session.expiry, session.expires_at = change.expiry, change.expires_at


def _reserve_block(state: State, change: ReserveBlock) -> None:
    state.sessions[change.session].next_block = change.next_block


def _put_received(state: State, change: PutReceived) -> None:
    session = state.sessions.get(change.session)
    if session is not None and session.owner == change.owner:
        session.received.add(change.packet_id)


def _drop_received(state: State, change: DropReceived) -> None:
    session = state.sessions.get(change.session)
    if session is not None and session.owner == change.owner:
        session.received.discard(change.packet_id)


def _put_retained(state: State, change: PutRetained) -> None:
    stored = state.retained.get(change.topic)
    if stored is None or (change.time, change.id) > (stored.time, stored.id):
        state.retained[change.topic] = change


def _put_document(state: State, change: PutDocument) -> None:
    state.documents[change.document.kind, change.document.name] = change.document
    state.cluster.told[Notice(DOCUMENTS, change.document.kind)] = None


def _drop_document(state: State, change: DropDocument) -> None:
    state.documents.pop((change.kind, change.name), None)
    state.cluster.told[Notice(DOCUMENTS, change.kind)] = None


def _put_status(state: State, change: PutStatus) -> None:
    state.statuses[change.status.client] = (change.status, change.state)


def _drop_rule(state: State, change: DropRule) -> None:
    state.rules.pop(change.id, None)
    state.rule_states.pop(change.id, None)
    for key in [key for key in state.letters if key[0] == change.id]:
        del state.letters[key]


def _put_rule_state(state: State, change: PutRuleState) -> None:
    if change.rule in state.rules:
        state.rule_states[change.rule] = change.state


def _put_letter(state: State, change: PutDeadLetter) -> None:
    if change.letter.rule in state.rules:
        state.letters[change.letter.rule, change.letter.number] = change.letter


def _drop_letters(state: State, change: DropDeadLetters) -> None:
    for key in [key for key in state.letters if key[0] == change.rule and change.first <= key[1] <= change.last]:
        del state.letters[key]


_APPLY: Final[dict[type, Callable[[State, Any], object]]] = {
    PutSubscription: _put_subscription,
    DropSubscription: _drop_subscription,
    PutEntry: _put_entry,
    SetEntry: _set_entry,
    DropEntry: _drop_entry,
    EndConnection: _end_connection,
    RemoveSession: lambda state, change: state.remove_session(change.session),
    ReserveBlock: _reserve_block,
    Resumed: lambda state, change: setattr(state.sessions[change.session], "resuming", False),
    PutReceived: _put_received,
    DropReceived: _drop_received,
    PutRetained: _put_retained,
    PutChannel: lambda state, change: state.channels.update({change.channel.channel: change.channel}),
    DropChannel: lambda state, change: state.channels.pop(change.channel, None),
    PutStatus: _put_status,
    PutDocument: _put_document,
    DropDocument: _drop_document,
    FinishReplayed: _finish_replayed,
    PutRoute: put_route,
    TrimRoutes: trim_routes,
    Tell: lambda state, change: state.cluster.told.setdefault(change.notice),
    PutRule: lambda state, change: state.rules.update({change.rule.id: change.rule}),
    DropRule: _drop_rule,
    PutRuleState: _put_rule_state,
    PutDeadLetter: _put_letter,
    DropDeadLetters: _drop_letters,
}
