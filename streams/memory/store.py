"""The store in memory: the plainest thing that keeps the port's promises, and what the contract suite measures others by.

One call after the other, each change at once, nothing netted and nothing indexed. Of two halves: here calls, claims and
reads, in changes.py what a change does and in sweep.py what a sweep removes.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Final

from schemas.errors import StoreError
from schemas.identities import AccessKey
from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.rules import Rule, RuleState
from schemas.sessions import BoxEntry, BoxState, RetainedMessage, SessionState
from schemas.topics import matches
from streams.cluster import DOCUMENTS, KEYS, SESSION, Fence, NodeFence, Notice, late_before, resume_of
from streams.memory.changes import apply
from streams.memory.cluster import NODE_DEAD, MemoryCluster, holds
from streams.memory.state import Box, Session, State
from streams.memory.sweep import sweep
from streams.store import Change, CommitResult, Counts, DeadLetter, Document, OpenChannel, Refused, Swept

_STARTED: Final = (BoxState.IN_FLIGHT, BoxState.RELEASED)


class _Outcome(Awaitable[CommitResult]):
    """A commit's outcome, known from the beginning."""

    def __init__(self, result: CommitResult | StoreError) -> None:
        self._result = result

    def __await__(self) -> Generator[None, None, CommitResult]:
        yield from ()
        if isinstance(self._result, StoreError):
            raise self._result
        return self._result


class MemoryStore:
    """See ``streams.store.Store``. While ``failing`` is set every call fails and changes nothing. ``now``: the clock by which leases run, ms."""

    def __init__(self, now: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._state = State()
        self.failing = False

        self.cluster = MemoryCluster(self._working, lambda number, owner: self._described(number, present=True, entries=False, owner=owner), now)

    async def claim(
        self, client: str, principal: str, *, clean_start: bool, expiry: int, now: int, limit: int, owner: int = 0
    ) -> SessionState | Refused:
        state = self._working()
        if owner and not holds(state.cluster, NodeFence(owner)):
            return Refused(NODE_DEAD)
        session = state.session_of(client)
        stored, before = session, session.owner if session is not None else 0
        replaces = session is not None
        if session is not None and 0 < session.expires_at <= now:
            state.remove_session(session.id)
            session = None
        if session is not None and session.principal != principal:
            return Refused("client id of another principal", session.principal)
        present = session is not None and not clean_start
        if session is not None and clean_start:
            state.remove_session(session.id)
            session = None
        if not replaces and expiry and len(state.sessions) >= limit:
            return Refused("session limit")
        if stored is not None and before not in (0, owner):
            epoch = state.boxes[stored.id].epoch + 1 if stored is session else 0
            self.cluster.listeners.tell([Notice(SESSION, f"{before} {stored.id} {epoch}")])
        if session is None:
            if not expiry:
                state.connections += 1
                return SessionState(0, state.connections, client, principal, False, 0, mailbox=state.mailboxes.get(client, 0), owner=before)
            session = Session(state.next_number(), client, principal, owner=owner)
            state.sessions[session.id], state.boxes[session.id] = session, Box()
        state.boxes[session.id].epoch += 1
        session.expiry, session.expires_at = expiry, 0
        state.hand(session, owner)
        return self._described(session.id, present=present, entries=True, owner=before)

    def commit(self, changes: Sequence[Change], positions: Mapping[str, At] | None = None, fences: Sequence[Fence] = ()) -> Awaitable[CommitResult]:
        if self.failing:
            return _Outcome(StoreError("the store is failing"))
        lost = tuple(fence for fence in fences if not holds(self._state.cluster, fence))
        if lost:
            return _Outcome(CommitResult(lost=lost))
        result = apply(self._state, changes)
        for reader, at in (positions or {}).items():
            self._state.positions.setdefault(reader, {})[at.shard] = at
        self._tell()
        return _Outcome(result)

    async def mailbox(self, client: str) -> int:
        state = self._working()
        if client not in state.mailboxes:
            number = state.mailboxes[client] = state.next_number()
            state.boxes[number] = Box()
        return state.mailboxes[client]

    async def mailboxes(self) -> Mapping[str, int]:
        return dict(self._working().mailboxes)

    async def entries(self, box: int, after: At | None, limit: int, *, newest_first: bool = False, epoch: int = 0) -> list[BoxEntry]:
        there = self._working().boxes.get(box, Box())
        found = there.queued() if epoch in (0, there.epoch) else []
        if newest_first:
            found.reverse()
        if after is not None:
            found = [entry for entry in found if (entry.at < after if newest_first else entry.at > after)]
        return found[:limit]

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[RetainedMessage]:
        found = [
            RetainedMessage(topic, put.record)
            for topic, put in sorted(self._working().retained.items())
            if put.record is not None and topic > after and matches(topic_filter, topic)
        ]
        return found[:limit]

    async def sessions(self, after: int, limit: int) -> list[SessionState]:
        state = self._working()
        numbers = sorted(number for number in state.sessions if number > after)[:limit]
        return [self._described(number, present=True, entries=False, owner=state.sessions[number].owner) for number in numbers]

    async def positions(self) -> Mapping[str, Mapping[int, At]]:
        return {reader: dict(shards) for reader, shards in self._working().positions.items()}

    async def channels(self) -> list[OpenChannel]:
        return [channel for _, channel in sorted(self._working().channels.items())]

    async def statuses(self, clients: Sequence[str]) -> Mapping[str, tuple[ClientStatus, bytes]]:
        known = self._working().statuses
        return {client: known[client] for client in clients if client in known}

    async def statuses_of(self, prefix: str, after: str, limit: int) -> list[ClientStatus]:
        known = self._working().statuses
        return [known[client][0] for client in sorted(known) if client.startswith(prefix) and client > after][:limit]

    async def sweep(self, now: int, *, entries_per_box: int, entries_total: int, entry_age: int, limit: int) -> Swept:
        swept = sweep(self._working(), now, entries_per_box=entries_per_box, entries_total=entries_total, entry_age=entry_age, limit=limit)
        self._tell()
        return swept

    async def rules(self) -> list[tuple[Rule, RuleState | None]]:
        state = self._working()
        return [(rule, state.rule_states.get(name)) for name, rule in sorted(state.rules.items())]

    async def dead_letters(self, rule: str, after: int, limit: int) -> list[DeadLetter]:
        letters = sorted(self._working().letters.items())
        return [letter for (name, number), letter in letters if name == rule and number > after][:limit]

    async def counts(self) -> Counts:
        state = self._working()
        return Counts(
            sessions=len(state.sessions),
            entries=sum(len(box.queued()) for box in state.boxes.values()),
            retained=sum(put.record is not None for put in state.retained.values()),
            open_channels=len(state.channels),
        )

    async def next_epoch(self) -> int:
        state = self._working()
        state.node_epoch += 1
        return state.node_epoch

    async def put_key(self, key: AccessKey) -> None:
        self._working().keys[key.id] = key
        self.cluster.listeners.tell([Notice(KEYS)])

    async def keys(self) -> list[AccessKey]:
        return [key for _, key in sorted(self._working().keys.items())]

    async def add_document(self, document: Document) -> bool:
        documents = self._working().documents
        added = documents.setdefault((document.kind, document.name), document) is document
        if added:
            self.cluster.listeners.tell([Notice(DOCUMENTS, document.kind)])
        return added

    async def documents(self, kind: str, after: str, limit: int) -> list[Document]:
        found = sorted((key, document) for key, document in self._working().documents.items() if key[0] == kind and key[1] > after)
        return [document for _, document in found[:limit]]

    async def property(self, name: str, default: str | None = None) -> str | None:
        properties = self._working().properties
        if default is not None:
            properties.setdefault(name, default)
        return properties.get(name)

    async def put_property(self, name: str, value: str) -> None:
        self._working().properties[name] = value

    async def close(self) -> None:
        """Nothing is kept for another opening."""

    def _tell(self) -> None:
        told, self._state.cluster.told = self._state.cluster.told, {}
        self.cluster.listeners.tell(list(told))

    def _working(self) -> State:
        if self.failing:
            raise StoreError("the store is failing")
        return self._state

    def _described(self, number: int, *, present: bool, entries: bool, owner: int) -> SessionState:
        session, box = self._state.sessions[number], self._state.boxes[number]
        return SessionState(
            id=session.id,
            epoch=box.epoch,
            client=session.client,
            principal=session.principal,
            present=present,
            expiry=session.expiry,
            subscriptions=tuple(subscription for _, subscription in sorted(session.subscriptions.items())),
            next_block=session.next_block,
            in_flight=tuple(box.entries[at] for at in sorted(box.entries) if box.entries[at].state in _STARTED) if entries else (),
            queued=len(box.queued()),
            mailbox=self._state.mailboxes.get(session.client, 0),
            received=tuple(sorted(session.received)),
            expires_at=session.expires_at,
            owner=owner,
            resume=resume_of(session.floor) if session.resuming else None,
            late_before=late_before(session.floor),
        )
