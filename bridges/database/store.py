"""The store on a database: each method of the port hands the worker what is to be done in its transaction.

Neighbours: worker.py (the thread and its transactions), changes.py, claims.py, reads.py, sweeps.py (what is done in them).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from bridges.database import reads
from bridges.database.changes import document_row
from bridges.database.claims import Connections, claim, next_number, open_mailbox
from bridges.database.cluster import DatabaseCluster
from bridges.database.notices import Listening
from bridges.database.opening import open_database
from bridges.database.rows import encode
from bridges.database.rules import letters_page, rules_all
from bridges.database.sql import upsert
from bridges.database.sweeps import Cursors, sweep
from bridges.database.tables import access_keys, documents, properties
from bridges.database.worker import Transaction, Worker
from schemas.errors import StartError
from schemas.identities import AccessKey, Secret
from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.rules import Rule, RuleState
from schemas.sessions import BoxEntry, RetainedMessage, SessionState
from streams.cluster import DOCUMENTS, KEYS, Fence, Notice
from streams.store import Change, CommitResult, Counts, DeadLetter, Document, OpenChannel, Refused, Swept

_PUT_KEY: Final = upsert(access_keys, "detail")
_PUT_PROPERTY: Final = upsert(properties)
_SET_PROPERTY: Final = upsert(properties, "value")
_ADD_DOCUMENT: Final = upsert(documents)


class DatabaseStore:
    """See ``streams.store.Store``. Made by ``open``; used from the loop's thread."""

    def __init__(self, engine: Engine, listening: Listening, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._listening = listening
        self._worker = Worker(engine, loop, listening.tell)
        self.cluster = DatabaseCluster(self._worker, listening)
        self._connections = Connections()
        self._cursors = Cursors()

    @classmethod
    def open(cls, path: Path, loop: asyncio.AbstractEventLoop) -> DatabaseStore:
        """The store in a SQLite file, made or brought up to date; StartError where that can't be. Blocks for the time it takes."""
        return cls(open_database(path), Listening(loop, None, OSError), loop)

    @classmethod
    def connect(cls, url: str, loop: asyncio.AbstractEventLoop, password: Secret | None = None) -> DatabaseStore:
        """The same in a PostgreSQL database, which others may use as well."""
        try:
            from bridges.database import postgresql  # its driver is an extra
        except ImportError:
            raise StartError("store.url needs the driver of PostgreSQL: pip install 'sluiceway[postgresql]'") from None
        listening = Listening(loop, partial(postgresql.connect_to_listen, url, password), postgresql.Error)
        return cls(postgresql.open_postgresql(url, password), listening, loop)

    def stand_on(self, fences: Sequence[Fence]) -> None:
        """From now on, where one of these doesn't hold, all that is asked of the store fails, but what a node asks about itself."""
        self._worker.stands_on = tuple(fences)

    @property
    def failures(self) -> int:
        """Calls that failed, commits included that nobody waited for."""
        return self._worker.failures

    async def claim(
        self, client: str, principal: str, *, clean_start: bool, expiry: int, now: int, limit: int, owner: int = 0
    ) -> SessionState | Refused:
        def work(transaction: Transaction) -> SessionState | Refused:
            return claim(
                transaction.connection,
                transaction.epochs,
                self._connections,
                client,
                principal,
                clean_start=clean_start,
                expiry=expiry,
                now=now,
                limit=limit,
                owner=owner,
                told=transaction.told,
            )

        found: SessionState | Refused = await self._worker.call(work, client)
        return found

    def commit(self, changes: Sequence[Change], positions: Mapping[str, At] | None = None, fences: Sequence[Fence] = ()) -> Awaitable[CommitResult]:
        return self._worker.commit(changes, positions or {}, fences)

    async def mailbox(self, client: str) -> int:
        number: int = await self._worker.call(lambda transaction: open_mailbox(transaction.connection, transaction.epochs, client))
        return number

    async def mailboxes(self) -> Mapping[str, int]:
        found: Mapping[str, int] = await self._read(reads.mailboxes_all)
        return found

    async def entries(self, box: int, after: At | None, limit: int, *, newest_first: bool = False, epoch: int = 0) -> list[BoxEntry]:
        found: list[BoxEntry] = await self._read(reads.entries_page, box, after, limit, newest_first=newest_first, epoch=epoch)
        return found

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[RetainedMessage]:
        found: list[RetainedMessage] = await self._read(reads.retained_page, topic_filter, after, limit)
        return found

    async def sessions(self, after: int, limit: int) -> list[SessionState]:
        found: list[SessionState] = await self._read(reads.sessions_page, after, limit)
        return found

    async def positions(self) -> Mapping[str, Mapping[int, At]]:
        found: Mapping[str, Mapping[int, At]] = await self._read(reads.stored_positions)
        return found

    async def channels(self) -> list[OpenChannel]:
        found: list[OpenChannel] = await self._read(reads.open_channels)
        return found

    async def statuses(self, clients: Sequence[str]) -> Mapping[str, tuple[ClientStatus, bytes]]:
        found: Mapping[str, tuple[ClientStatus, bytes]] = await self._read(reads.statuses, clients)
        return found

    async def statuses_of(self, prefix: str, after: str, limit: int) -> list[ClientStatus]:
        found: list[ClientStatus] = await self._read(reads.statuses_page, prefix, after, limit)
        return found

    async def sweep(self, now: int, *, entries_per_box: int, entries_total: int, entry_age: int, limit: int) -> Swept:
        def work(transaction: Transaction) -> Swept:
            return sweep(
                transaction.connection,
                transaction.epochs,
                transaction.told,
                self._cursors,
                now,
                entries_per_box=entries_per_box,
                entries_total=entries_total,
                entry_age=entry_age,
                limit=limit,
            )

        swept: Swept = await self._worker.call(work)
        return swept

    async def rules(self) -> list[tuple[Rule, RuleState | None]]:
        found: list[tuple[Rule, RuleState | None]] = await self._read(rules_all)
        return found

    async def dead_letters(self, rule: str, after: int, limit: int) -> list[DeadLetter]:
        found: list[DeadLetter] = await self._read(letters_page, rule, after, limit)
        return found

    async def counts(self) -> Counts:
        found: Counts = await self._read(reads.counts)
        return found

    async def next_epoch(self) -> int:
        def work(transaction: Transaction) -> int:
            self._connections.node_epoch = number = next_number(transaction.connection, "node epoch")
            return number

        epoch: int = await self._worker.call(work)
        return epoch

    async def put_key(self, key: AccessKey) -> None:
        def work(transaction: Transaction) -> None:
            _PUT_KEY.run(transaction.connection, id=key.id, detail=encode(key))
            transaction.told[Notice(KEYS)] = None

        await self._worker.call(work)

    async def keys(self) -> list[AccessKey]:
        found: list[AccessKey] = await self._read(reads.access_keys_all)
        return found

    async def add_document(self, document: Document) -> bool:
        def work(transaction: Transaction) -> bool:
            added = _ADD_DOCUMENT.run(transaction.connection, **document_row(transaction.connection, document)) == 1
            if added:
                transaction.told[Notice(DOCUMENTS, document.kind)] = None
            return added

        added: bool = await self._worker.call(work)
        return added

    async def documents(self, kind: str, after: str, limit: int) -> list[Document]:
        found: list[Document] = await self._read(reads.documents_page, kind, after, limit)
        return found

    async def property(self, name: str, default: str | None = None) -> str | None:
        def work(transaction: Transaction) -> str | None:
            if default is not None:
                _PUT_PROPERTY.run(transaction.connection, name=name, value=default)
            return reads.property_value(transaction.connection, name)

        value: str | None = await self._worker.call(work)
        return value

    async def put_property(self, name: str, value: str) -> None:
        await self._worker.call(lambda transaction: _SET_PROPERTY.run(transaction.connection, name=name, value=value))

    async def close(self) -> None:
        await self._listening.close()
        await self._worker.close()
        self._engine.dispose()

    def _read(self, read: Any, *arguments: object, **options: object) -> Awaitable[Any]:
        bound = partial(read, **options)
        return self._worker.call(lambda transaction: bound(transaction.connection, *arguments))
