"""The cluster's half of the store on a database: each method hands the worker what is to be done in its transaction.

What a node asks about itself and its like is done whatever its transactions stand on: that is how it learns.
Neighbours: membership.py, routing.py, adopting.py, asking.py (what is done), notices.py (who hears of it).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from bridges.database import adopting, asking, membership, routing
from bridges.database.notices import Listening
from bridges.database.worker import Transaction, Worker
from schemas.sessions import SessionState
from streams.cluster import LEASE_MS, Answer, Lease, NodeState, Notice, Owner, Question, Routes
from streams.store import Refused


class DatabaseCluster:
    """See ``streams.cluster.Cluster``."""

    def __init__(self, worker: Worker, listening: Listening) -> None:
        self._worker = worker
        self._listening = listening

    async def join(self, node: str, epoch: int, detail: str, lease_ms: int = LEASE_MS) -> NodeState | Refused:
        call = self._worker.call(lambda t: membership.join(t.connection, t.told, node, epoch, detail, lease_ms), always=True)
        joined: NodeState | Refused = await call
        return joined

    async def renew(self, epoch: int, lease_ms: int = LEASE_MS) -> bool:
        renewed: bool = await self._worker.call(lambda t: membership.renew(t.connection, epoch, lease_ms), always=True)
        return renewed

    async def leave(self, epoch: int) -> None:
        await self._worker.call(lambda t: membership.leave(t.connection, t.told, epoch), always=True)

    async def nodes(self) -> list[NodeState]:
        found: list[NodeState] = await self._worker.call(lambda t: membership.all_nodes(t.connection), always=True)
        return found

    async def bury(self, epoch: int) -> bool:
        def work(transaction: Transaction) -> bool:
            buried = membership.bury(transaction.connection, transaction.told, epoch)
            if buried:
                asking.forget_node(transaction.connection, epoch)
            return buried

        buried: bool = await self._worker.call(work, always=True)
        return buried

    async def acquire(self, name: str, epoch: int) -> Lease | None:
        lease: Lease | None = await self._worker.call(lambda t: membership.acquire(t.connection, t.told, name, epoch), always=True)
        return lease

    async def release(self, name: str, epoch: int) -> None:
        await self._worker.call(lambda t: membership.release(t.connection, t.told, name, epoch), always=True)

    async def leases(self) -> list[Lease]:
        found: list[Lease] = await self._worker.call(lambda t: membership.all_leases(t.connection), always=True)
        return found

    async def adopt(self, dead: int, epoch: int, limit: int) -> list[SessionState] | Refused:
        taken: list[SessionState] | Refused = await self._worker.call(lambda t: adopting.adopt(t.connection, t.epochs, dead, epoch, limit))
        return taken

    async def owners(self, clients: Sequence[str]) -> Mapping[str, Owner]:
        found: Mapping[str, Owner] = await self._worker.call(lambda t: adopting.owners(t.connection, clients))
        return found

    async def routes(self, known: Mapping[int, int], limit: int) -> Routes:
        found: Routes = await self._worker.call(lambda t: routing.routes_behind(t.connection, known, limit))
        return found

    async def ask(self, question: Question, within_ms: int) -> list[NodeState] | Refused:
        others: list[NodeState] | Refused = await self._worker.call(lambda t: asking.ask(t.connection, t.told, question, within_ms))
        return others

    async def asked(self, epoch: int) -> list[Question]:
        found: list[Question] = await self._worker.call(lambda t: asking.asked(t.connection, epoch))
        return found

    async def answer(self, question: Question, answer: Answer) -> bool:
        taken: bool = await self._worker.call(lambda t: asking.answer(t.connection, t.told, question, answer))
        return taken

    async def answers(self, question: Question, known: Collection[int] = ()) -> list[Answer]:
        found: list[Answer] = await self._worker.call(lambda t: asking.answers_to(t.connection, question, known))
        return found

    async def withdraw(self, question: Question) -> None:
        await self._worker.call(lambda t: asking.withdraw(t.connection, question))

    def listen(self, heard: Callable[[Notice], None]) -> Callable[[], None]:
        return self._listening.listen(heard)
