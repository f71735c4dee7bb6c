"""The cluster's half of the store in memory. store.py owns the state and calls listeners; changes.py applies changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.sessions import SessionState
from streams.cluster import (
    ANSWER,
    ASK,
    KEPT_MS,
    LEASE_MS,
    NODES,
    QUESTIONS,
    ROUTES,
    Answer,
    Fence,
    Lease,
    NodeFence,
    NodeState,
    Notice,
    Owner,
    PutRoute,
    Question,
    Route,
    Routes,
    TrimRoutes,
    routing_reader,
)
from streams.memory.state import Asked, ClusterState, Node, State
from streams.store import Refused

NODE_IN_USE: Final = "node id in use"
NODE_DEAD: Final = "this node is dead"
NODE_ALIVE: Final = "that node is alive"
TOO_MANY_QUESTIONS: Final = "too many questions at a time"


@dataclass
class Listeners:
    """Who wants notices."""

    heard: list[Callable[[Notice], None]] = field(default_factory=list)

    def tell(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            for each in list(self.heard):
                each(notice)


def holds(state: ClusterState, fence: Fence) -> bool:
    if isinstance(fence, NodeFence):
        return fence.epoch in state.nodes and not state.nodes[fence.epoch].dead
    lease = state.leases.get(fence.name)
    return lease is not None and lease.token == fence.token


def put_route(state: State, change: PutRoute) -> None:
    cluster = state.cluster
    stored = cluster.routes.get((change.epoch, change.filter))
    if stored is None or change.version > stored.version:
        cluster.routes[change.epoch, change.filter] = Route(change.epoch, change.filter, change.count, change.version)
        node = cluster.nodes[change.epoch]
        node.routes = max(node.routes, change.version)
        cluster.told[Notice(ROUTES, str(change.epoch))] = None


def trim_routes(state: State, change: TrimRoutes) -> None:
    routes = state.cluster.routes
    for key in [key for key, route in routes.items() if key[0] == change.epoch and not route.count and route.version <= change.upto]:
        del routes[key]


class MemoryCluster:
    """See ``streams.cluster.Cluster``. ``working`` gives the state or raises, ``describe`` a session as ``Store.sessions`` does.

    ``now``: the clock by which leases run, ms.
    """

    def __init__(self, working: Callable[[], State], describe: Callable[[int, int], SessionState], now: Callable[[], int]) -> None:
        self._now = now
        self._working = working
        self._describe = describe
        self.listeners = Listeners()

    async def join(self, node: str, epoch: int, detail: str, lease_ms: int = LEASE_MS) -> NodeState | Refused:
        nodes, now = self._working().cluster.nodes, self._now()
        if any(each.node == node and number != epoch and _lives(each, now) for number, each in nodes.items()):
            return Refused(NODE_IN_USE)
        stored = nodes.setdefault(epoch, Node(node))
        if stored.dead:
            return Refused(NODE_DEAD)
        stored.node, stored.detail, stored.until = node, detail, now + lease_ms
        self.listeners.tell([Notice(NODES)])
        return NodeState(epoch, node, lease_ms > 0, detail, stored.routes)

    async def renew(self, epoch: int, lease_ms: int = LEASE_MS) -> bool:
        node = self._working().cluster.nodes.get(epoch)
        if node is None or node.dead:
            return False
        node.until = self._now() + lease_ms
        return True

    async def leave(self, epoch: int) -> None:
        node = self._working().cluster.nodes.get(epoch)
        if node is not None:
            node.until = 0
            self.listeners.tell([Notice(NODES)])

    async def nodes(self) -> list[NodeState]:
        now = self._now()
        return [NodeState(epoch, n.node, _lives(n, now), n.detail, n.routes) for epoch, n in sorted(self._working().cluster.nodes.items())]

    async def bury(self, epoch: int) -> bool:
        state = self._working()
        cluster = state.cluster
        node = cluster.nodes.get(epoch)
        if (node is not None and _lives(node, self._now())) or state.owned(epoch):
            return False
        cluster.nodes.pop(epoch, None)
        cluster.routes = {key: route for key, route in cluster.routes.items() if key[0] != epoch}
        cluster.asked = {key: asked for key, asked in cluster.asked.items() if key[0] != epoch}
        cluster.leases = {n: Lease(n, lease.token + 1, 0) if lease.epoch == epoch else lease for n, lease in cluster.leases.items()}
        reader = routing_reader(epoch)
        state.positions = {name: shards for name, shards in state.positions.items() if name.partition(":")[0] != reader}
        self.listeners.tell([Notice(NODES), Notice(ROUTES, str(epoch))])
        return True

    async def acquire(self, name: str, epoch: int) -> Lease | None:
        cluster, now = self._working().cluster, self._now()
        mine, lease = cluster.nodes.get(epoch), cluster.leases.get(name, Lease(name, 0, 0))
        if mine is None or not _lives(mine, now):
            return None
        if lease.epoch != epoch:
            holder = cluster.nodes.get(lease.epoch)
            if holder is not None and _lives(holder, now):
                return None
            lease = cluster.leases[name] = Lease(name, lease.token + 1, epoch)
            self.listeners.tell([Notice(NODES)])
        return lease

    async def release(self, name: str, epoch: int) -> None:
        leases = self._working().cluster.leases
        if name in leases and leases[name].epoch == epoch:
            leases[name] = Lease(name, leases[name].token + 1, 0)
            self.listeners.tell([Notice(NODES)])

    async def leases(self) -> list[Lease]:
        return [lease for _, lease in sorted(self._working().cluster.leases.items())]

    async def adopt(self, dead: int, epoch: int, limit: int) -> list[SessionState] | Refused:
        state = self._working()
        mine, other = state.cluster.nodes.get(epoch), state.cluster.nodes.get(dead)
        if mine is None or mine.dead:
            return Refused(NODE_DEAD)
        if other is not None:
            if _lives(other, self._now()):
                return Refused(NODE_ALIVE)
            other.dead = True
        numbers = state.owned(dead)[:limit]
        for number in numbers:
            state.boxes[number].epoch += 1
            state.hand(state.sessions[number], epoch)
        return [self._describe(number, dead) for number in numbers]

    async def owners(self, clients: Sequence[str]) -> Mapping[str, Owner]:
        state = self._working()
        found = [session for client in clients if (session := state.session_of(client)) is not None]
        return {session.client: Owner(session.id, state.boxes[session.id].epoch, session.owner) for session in found}

    async def routes(self, known: Mapping[int, int], limit: int) -> Routes:
        cluster = self._working().cluster
        news = [route for route in cluster.routes.values() if route.version > known.get(route.epoch, 0)]
        news.sort(key=lambda route: (route.epoch, route.version))
        return Routes(tuple(news[:limit]), tuple(sorted(epoch for epoch in known if epoch not in cluster.nodes)))

    async def ask(self, question: Question, within_ms: int) -> list[NodeState] | Refused:
        cluster, now = self._working().cluster, self._now()
        cluster.asked = {key: asked for key, asked in cluster.asked.items() if asked.until + KEPT_MS > now}
        if sum(epoch == question.epoch for epoch, _ in cluster.asked) >= QUESTIONS:
            return Refused(TOO_MANY_QUESTIONS)
        others = [node for node in await self.nodes() if node.alive and node.epoch != question.epoch]
        if others:
            cluster.asked[question.epoch, question.number] = Asked(question, now + within_ms)
            self.listeners.tell([Notice(ASK, str(question.epoch))])
        return others

    async def asked(self, epoch: int) -> list[Question]:
        now = self._now()
        waiting = [each for _, each in sorted(self._working().cluster.asked.items()) if each.until > now and epoch not in each.answers]
        return [each.question for each in waiting if each.question.epoch != epoch]

    async def answer(self, question: Question, answer: Answer) -> bool:
        asked = self._working().cluster.asked.get((question.epoch, question.number))
        if asked is None or asked.until <= self._now() or answer.epoch in asked.answers:
            return False
        asked.answers[answer.epoch] = answer
        self.listeners.tell([Notice(ANSWER, f"{question.epoch} {question.number}")])
        return True

    async def answers(self, question: Question, known: Collection[int] = ()) -> list[Answer]:
        asked = self._working().cluster.asked.get((question.epoch, question.number))
        return [] if asked is None else [answer for epoch, answer in sorted(asked.answers.items()) if epoch not in known]

    async def withdraw(self, question: Question) -> None:
        self._working().cluster.asked.pop((question.epoch, question.number), None)

    def listen(self, heard: Callable[[Notice], None]) -> Callable[[], None]:
        self.listeners.heard.append(heard)
        return lambda: self.listeners.heard.remove(heard)


def _lives(node: Node, now: int) -> bool:
    return not node.dead and node.until > now
