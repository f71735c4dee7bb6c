"""The one thread that speaks to the database: takes calls in order, groups them into transactions, tells the loop what became of them.

Calls that arrive while a transaction is on its way share the next one. A transaction that fails fails all of its calls and
leaves nothing behind; its connection is given up with it, and the next transaction opens another. Where not the medium but a
call itself is at fault, that one fails alone. One whose connection was ended before its commit was asked for is done again on another
connection: a server that was restarted, or that gave up on a machine which stood still, costs nobody an answer. Knows no SQL but epochs.

Of many nodes one may stand still and hold rows. Whether this node lives is asked before all that may have to wait for them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

from sqlalchemy import Connection, Engine

from bridges.database.changes import Changes, Outcome, numbers_of
from bridges.database.failures import MEDIUM_ERRORS, Meaning, meaning, reason
from bridges.database.locks import is_gone, is_shared, learn_clients, learn_epochs
from bridges.database.membership import call_it, end_silent, holds
from bridges.database.notices import notify
from schemas.errors import StoreBusy, StoreError
from schemas.positions import At
from streams.cluster import Fence, Notice
from streams.store import Change

GROUP_CHANGES: Final = 1024
"""A transaction takes no further call once it has so many changes; a call is never divided."""
CALL_COST: Final = 16
"""What a call other than a commit counts for in that."""
PENDING_CHANGES: Final = 250_000
"""Changes that may be asked for and not yet be durable; further ones are refused until some are."""

TRIES: Final = 5
"""How often a transaction that lost against another node's is done at all."""

logger = logging.getLogger(__name__)


class Transaction:
    """What a call works in. Nothing of it outlives the transaction, so there is nothing to forget where it is rolled back."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.epochs: dict[int, int] = {}
        self.told: dict[Notice, None] = {}
        self.changes = Changes(connection, self.epochs, self.told)

    def prepare(self, group: Sequence[Call | Commit]) -> None:
        """The boxes that the group is about are this transaction's own, and their epochs known."""
        numbers: list[int] = []
        clients: list[str] = []
        for call in group:
            if isinstance(call, Commit):
                numbers += numbers_of(call.changes)
            elif call.client is not None:
                clients.append(call.client)
        if clients:
            numbers += learn_clients(self.connection, clients)
        learn_epochs(self.connection, self.epochs, numbers)


class Call:
    """Something asked of the store, other than a commit; it sees all changes asked for before it. ``client``: whose session it takes.

    ``always``: done for one whose place another has taken, too, in a transaction of such calls alone and before all else that waits.
    """

    __slots__ = ("always", "client", "cost", "future", "result", "work")

    def __init__(self, future: asyncio.Future[Any], work: Callable[[Transaction], Any], client: str | None = None, *, always: bool = False) -> None:
        self.future = future
        self.work = work
        self.client = client
        self.always = always
        self.cost = CALL_COST
        self.result: Any = None

    def run(self, transaction: Transaction) -> None:
        transaction.changes.flush()
        self.result = self.work(transaction)

    def finish(self) -> None:
        """The transaction is about to be committed."""


class Commit:
    """Changes that are durable together or not at all."""

    __slots__ = ("changes", "cost", "fences", "future", "outcome", "positions", "result")
    always = False

    def __init__(self, future: asyncio.Future[Any], changes: Sequence[Change], positions: Mapping[str, At], fences: Sequence[Fence]) -> None:
        self.future = future
        self.changes = changes
        self.positions = positions
        self.fences = fences
        self.cost = len(changes) + len(positions)
        self.outcome = Outcome()
        self.result: Any = None

    def run(self, transaction: Transaction) -> None:
        self.outcome = Outcome()
        if self.fences:
            self.outcome.lost = tuple(fence for fence in self.fences if not holds(transaction.connection, fence))
            if self.outcome.lost:
                return
        transaction.changes.take(self.changes, self.positions, self.outcome)

    def finish(self) -> None:
        """The counts are known once all is flushed."""
        self.result = self.outcome.result()


class _First:
    """A place in the queue of a call that waits elsewhere, and before this."""


class PlaceLost(Exception):
    """What all transactions of this process stand on doesn't hold any more."""


class Worker:
    """``failures`` counts calls that failed, also where nobody waited for them. ``tell`` hears notices, on the loop's thread.

    ``stands_on`` are fences of every transaction from now on: where one doesn't hold, whatever was asked for fails.
    """

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop, tell: Callable[[Iterable[Notice]], None]) -> None:
        self.failures = 0
        self.stands_on: tuple[Fence, ...] = ()
        self._tell_notices = tell
        self._engine = engine
        self._loop = loop
        self._connection: Connection | None = None
        self._committing = False
        """The transaction is asked to commit: from there on nobody knows what became of it where the connection is lost."""
        self._named: Connection | None = None
        """The connection that the database knows as this node's."""
        self._calls: SimpleQueue[Call | Commit | _First | None] = SimpleQueue()
        self._first: deque[Call] = deque()
        """Calls that are done always; each has a ``_First`` in the queue."""
        self._pending = 0
        self._closed = False
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)
        self._thread.start()

    def commit(self, changes: Sequence[Change], positions: Mapping[str, At], fences: Sequence[Fence]) -> asyncio.Future[Any]:
        return self._ask(Commit(self._loop.create_future(), changes, positions, fences))

    def call(self, work: Callable[[Transaction], Any], client: str | None = None, *, always: bool = False) -> asyncio.Future[Any]:
        return self._ask(Call(self._loop.create_future(), work, client, always=always))

    async def close(self) -> None:
        """Once all that was asked for is done and the connection is closed."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _ask(self, call: Call | Commit) -> asyncio.Future[Any]:
        if self._closed or self._pending >= PENDING_CHANGES:
            self._fail(call, StoreError("the store is closed" if self._closed else f"{self._pending} changes are waiting for the store"))
        else:
            self._pending += call.cost
            if call.always:
                assert isinstance(call, Call)  # noqa: S101 - no commit is
                self._first.append(call)
                self._calls.put(_First())
            else:
                self._calls.put(call)
        return call.future

    def _fail(self, call: Call | Commit, error: StoreError) -> None:
        self.failures += 1
        if not call.future.done():
            call.future.set_exception(error)
            call.future.exception()  # nobody has to wait for a commit, so nobody has to hear of this

    def _settle(self, group: Sequence[Call | Commit], error: StoreError | None) -> None:
        """On the loop's thread, once a transaction."""
        for call in group:
            self._pending -= call.cost
            if error is not None:
                self._fail(call, error)
            elif not call.future.done():
                call.future.set_result(call.result)

    # What follows runs on the store's own thread.

    def _serve(self) -> None:
        last = False
        while not last:
            group, last = self._gather()
            for part, error in self._outcomes(group) if group else ():
                self._tell(self._settle, part, error)
        self._let_go()
        self._tell(self._set_stopped)

    def _gather(self) -> tuple[list[Call | Commit], bool]:
        group: list[Call | Commit] = []
        cost = 0
        try:
            while cost < GROUP_CHANGES:
                if not group and self._first:
                    group += [self._first.popleft() for _ in range(len(self._first))]
                    return group, False
                call = self._calls.get_nowait() if group else self._calls.get()
                if call is None:
                    return group, True
                if isinstance(call, _First):
                    if group:
                        return group, False
                    continue
                group.append(call)
                cost += call.cost
        except Empty:
            pass
        return group, False

    def _outcomes(self, group: Sequence[Call | Commit]) -> list[tuple[Sequence[Call | Commit], StoreError | None]]:
        for remaining in reversed(range(TRIES)):
            try:
                self._transact(group)
            except PlaceLost:
                return [(group, StoreError("another gateway has taken this one's place in the database"))]
            except Exception as error:
                means = self._meaning(error)
                if means is Meaning.AGAIN and remaining:
                    continue
                self._let_go()
                if means is Meaning.BUSY:
                    self._end_silent()
                    return [(group, StoreBusy(f"the store failed: {reason(error)}"))]
                if means is not Meaning.CALL:
                    return [(group, StoreError(f"the store failed: {reason(error)}"))]
                if len(group) > 1:  # one of them is at fault: it alone shall fail
                    return [outcome for call in group for outcome in self._outcomes([call])]
                logger.exception("store-call-failed")
                return [(group, StoreError(f"the store can't do this: {reason(error)}"))]
            else:
                break
        return [(group, None)]

    def _meaning(self, error: Exception) -> Meaning:
        """What is to be done about it; a connection that is gone is let go."""
        means = meaning(error, self._engine.dialect.dbapi)
        if self._connection is not None and is_gone(self._connection):
            self._let_go()
            if means is Meaning.MEDIUM and not self._committing:
                return Meaning.AGAIN
        return means

    def _transact(self, group: Sequence[Call | Commit]) -> None:
        self._committing = False
        if self._connection is None:
            self._connection = self._engine.connect()
        with self._connection.begin():
            transaction = Transaction(self._connection)
            if not group[0].always and not all(holds(self._connection, fence) for fence in self.stands_on):
                raise PlaceLost
            if self.stands_on and self._named is not self._connection and is_shared(self._connection):
                call_it(self._connection, self.stands_on)
            transaction.prepare(group)
            for call in group:
                call.run(transaction)
            transaction.changes.flush()
            for call in group:
                call.finish()
            notify(self._connection, transaction.told)
            self._committing = True
        if self.stands_on:
            self._named = self._connection
        if transaction.told and not is_shared(self._connection):
            self._tell(self._tell_notices, list(transaction.told))

    def _end_silent(self) -> None:
        """The rows may be held by a node that stands still: when they are asked for again they are to be had."""
        try:
            with self._engine.connect() as connection, connection.begin():
                end_silent(connection)
        except MEDIUM_ERRORS as error:
            logger.warning("store-connection-lost error=%s", reason(error))

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:
                if meaning(error, self._engine.dialect.dbapi) is Meaning.CALL:
                    raise
                logger.warning("store-connection-lost error=%s", reason(error))

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            logger.warning("store-loop-closed")

    def _set_stopped(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)
