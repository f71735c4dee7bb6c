"""A million devices that are away, spread over simulated nodes: each has a session with its own subscription, and is sent a command now and then.

The store in memory finds nothing but by looking at all of it; here it has an index by client and by owner, so that so many sessions can be had.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence

from gateway.recovery import install_session
from schemas.identities import ANONYMOUS, Principal
from schemas.positions import At
from schemas.sessions import SessionState, Subscription
from streams.cluster import Fence
from streams.memory.state import Box, Session, State
from streams.memory.store import MemoryStore
from streams.store import Change, CommitResult, FinishReplayed, Swept
from tests.support.many_bed import ManyBed, One
from tests.support.many_simulation import KEPT, Simulation

EXPIRY = 86_400
SITES = 1_000
GROUPS = 50


class _Sessions(dict[int, Session]):
    """By number; ``by_client`` and ``by_owner`` are the indexes."""

    def __init__(self) -> None:
        super().__init__()
        self.by_client: dict[str, Session] = {}
        self.by_owner: dict[int, dict[int, None]] = defaultdict(dict)

    def __setitem__(self, number: int, session: Session) -> None:
        super().__setitem__(number, session)
        self.by_client[session.client] = session
        self.by_owner[session.owner][number] = None

    def __delitem__(self, number: int) -> None:
        session = self[number]
        super().__delitem__(number)
        del self.by_client[session.client]
        del self.by_owner[session.owner][number]


class IndexedState(State):
    def __init__(self) -> None:
        super().__init__()
        self._indexed = _Sessions()
        self.sessions = self._indexed

    def session_of(self, client: str) -> Session | None:
        return self._indexed.by_client.get(client)

    def owned(self, owner: int) -> list[int]:
        return sorted(self._indexed.by_owner[owner])

    def hand(self, session: Session, owner: int) -> None:
        del self._indexed.by_owner[session.owner][session.id]
        super().hand(session, owner)
        self._indexed.by_owner[session.owner][session.id] = None


class CrowdedStore(MemoryStore):
    """Nothing in a crowd ends, and to find that out means to look at all of it; finished QoS 2 deliveries stay, which harms nobody."""

    def commit(self, changes: Sequence[Change], positions: Mapping[str, At] | None = None, fences: Sequence[Fence] = ()) -> Awaitable[CommitResult]:
        return super().commit([change for change in changes if not isinstance(change, FinishReplayed)], positions, fences)

    async def sweep(self, now: int, *, entries_per_box: int, entries_total: int, entry_age: int, limit: int) -> Swept:
        return Swept()


def make_room(bed: ManyBed) -> None:
    """Before any node of the bed starts."""
    bed.store = CrowdedStore(lambda: int(bed.loop.time() * 1000))
    bed.store._state = IndexedState()


def filters(number: int) -> list[str]:
    """One of its own; one in ten also one for its site, one in a hundred is a member of a shared subscription."""
    found = [f"device/{number}/cmd"]
    if number % 10 == 0:
        found.append(f"site/{number % SITES}/+/alarm")
    if number % 100 == 0:
        found.append(f"$share/g{number // 100 % GROUPS}/meter/{number // 100 % GROUPS}/#")
    return found


def place(number: int, nodes: int) -> int:
    """Devices of one site, and members of one shared subscription, lie on a few nodes, however many there are."""
    return (number // 100 % GROUPS + number // 5_000 % 3) % nodes if number % 10 == 0 else number % nodes


class Crowd:
    """``sent``: by device the payloads of its commands."""

    def __init__(self, bed: ManyBed, count: int) -> None:
        self._bed, self.count = bed, count
        self.sent: dict[str, list[bytes]] = defaultdict(list)
        ones = list(bed.living.values())
        for number in range(count):
            self._install(number, ones[place(number, len(ones))])

    def _install(self, number: int, one: One) -> None:
        """As if the device had connected there, subscribed and gone, without a packet."""
        node, state, client = one.node, self._bed.store._state, f"device{number}"
        subscriptions = {wanted: Subscription(wanted, 1) for wanted in filters(number)}
        expires = node.clock.wall() + EXPIRY * 1_000
        session = Session(state.next_number(), client, ANONYMOUS, EXPIRY, expires, owner=node.owner, subscriptions=dict(subscriptions))
        state.sessions[session.id], state.boxes[session.id] = session, Box(epoch=1)
        described = SessionState(session.id, 1, client, ANONYMOUS, True, EXPIRY, tuple(subscriptions.values()), owner=node.owner)
        install_session(node, described, Principal(ANONYMOUS, "anonymous", client)).expires_at = expires

    def command(self, simulation: Simulation) -> None:
        """To one device, by any node."""
        number, payload = simulation.random.randrange(self.count), b"command %d" % len(self.sent)
        simulation.one().connect("backend", **KEPT).exchange(f"device/{number}/cmd", payload)
        self.sent[f"device{number}"].append(payload)

    def problems(self) -> list[str]:
        """Each command lies in its device's box, once, and a living node has the session."""
        state = self._bed.store._state
        living = {one.node.owner for one in self._bed.living.values()}
        found = []
        for client, payloads in self.sent.items():
            session = state.session_of(client)
            assert session is not None
            stored = [entry.record.payload for entry in state.boxes[session.id].entries.values()]
            if sorted(stored) != sorted(payloads):
                found.append(f"lost: {client} has {stored} of {payloads}")
        left = sum(session.owner not in living for session in state.sessions.values())
        return [*found, *([f"owners: {left} sessions are those of no living node"] if left else [])]
