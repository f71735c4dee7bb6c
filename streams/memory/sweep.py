"""What a sweep removes from the state in memory. store.py calls it; the port says what counts as old and in which order."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from schemas.sessions import BoxEntry
from streams.memory.state import State
from streams.store import TOMBSTONE_MS, Swept


def sweep(state: State, now: int, *, entries_per_box: int, entries_total: int, entry_age: int, limit: int) -> Swept:
    """At most ``limit`` of each."""
    sessions = _sessions(state, now, limit)
    expired = _drop(state, _expired(state, now), limit)
    aged = _drop(state, [(n, entry) for n, entry in _by_age(state) if _time(entry.record.id) <= now - entry_age * 1000], limit)
    over = 0
    for number in sorted(state.boxes):
        queued = state.boxes[number].queued()
        over += _drop(state, [(number, entry) for entry in queued[: max(0, len(queued) - entries_per_box)]], limit - over)
    queued_by_age = _by_age(state)
    over += _drop(state, queued_by_age[: max(0, len(queued_by_age) - entries_total)], limit - over)
    return Swept(
        sessions=sessions,
        expired_entries=expired,
        aged_entries=aged,
        over_limit_entries=over,
        bodies=_bodies(state, now, limit),
        expired_retained=_expire_retained(state, now, limit),
        tombstones=_tombstones(state, now, limit),
        expired_documents=_documents(state, now, limit),
    )


def _time(record_id: bytes) -> int:
    return int.from_bytes(record_id[:6], "big")


def _queued(state: State) -> list[tuple[int, BoxEntry]]:
    return [(number, entry) for number, box in sorted(state.boxes.items()) for entry in box.queued()]


def _expired(state: State, now: int) -> list[tuple[int, BoxEntry]]:
    found = [(number, entry) for number, entry in _queued(state) if 0 < entry.record.expires_at <= now]
    return sorted(found, key=lambda item: (item[1].record.expires_at, item[0], item[1].at))


def _by_age(state: State) -> list[tuple[int, BoxEntry]]:
    return sorted(_queued(state), key=lambda item: (item[1].record.id, item[0], item[1].at))


def _drop(state: State, found: Iterable[tuple[int, BoxEntry]], limit: int) -> int:
    chosen = list(found)[:limit]
    for number, entry in chosen:
        del state.boxes[number].entries[entry.at]
    return len(chosen)


def _sessions(state: State, now: int, limit: int) -> tuple[tuple[int, str], ...]:
    ended = sorted((s for s in state.sessions.values() if 0 < s.expires_at <= now), key=lambda s: (s.expires_at, s.id))[:limit]
    for session in ended:
        state.remove_session(session.id)
    return tuple((session.id, session.client) for session in ended)


def _bodies(state: State, now: int, limit: int) -> int:
    referenced = {entry.record.id for box in state.boxes.values() for entry in box.entries.values()}
    gone = sorted(body for body, keep_until in state.bodies.items() if keep_until <= now and body not in referenced)[:limit]
    for body in gone:
        del state.bodies[body]
    return len(gone)


def _expire_retained(state: State, now: int, limit: int) -> int:
    expired = [put for put in state.retained.values() if put.record is not None and 0 < put.record.expires_at <= now]
    expired.sort(key=lambda put: (put.record.expires_at if put.record else 0, put.topic))
    for put in expired[:limit]:
        state.retained[put.topic] = msgspec.structs.replace(put, record=None)
    return len(expired[:limit])


def _documents(state: State, now: int, limit: int) -> int:
    expired = sorted((d.expires_at, key) for key, d in state.documents.items() if 0 < d.expires_at <= now)[:limit]
    for _, key in expired:
        del state.documents[key]
    return len(expired)


def _tombstones(state: State, now: int, limit: int) -> int:
    old = sorted((put.time, topic) for topic, put in state.retained.items() if put.record is None and put.time <= now - TOMBSTONE_MS)[:limit]
    for _, topic in old:
        del state.retained[topic]
    return len(old)
