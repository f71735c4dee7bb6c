"""Nodes that start, leave, die and fall behind while sessions go from one to another and messages flow: by a seed, in time that stands still.

The gateways are the product's own (many_bed.py). What is judged in the end: whatever was acknowledged came to every session that was subscribed
and to a member of every shared subscription, QoS 2 once, and each publisher's messages in order; each connection had one tcpclean; no session
lives on two nodes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.protocol.packets import PacketType, Publish
from schemas.records import Kind
from schemas.topics import matches, parse_subscription
from tests.support.many_bed import ManyBed, One
from tests.support.party import Party

KEPT = {"clean_start": False, "session_expiry": 86_400}
LATE = 1.5
"""Seconds by which what a node writes may come late to the log, at most."""
BEHIND = 20.0
"""Seconds for which a node hears nothing of the log while it lives."""
LEASE = 6.0
"""Seconds until a node that said nothing is given up."""
PUBLISHERS = 3


@dataclass(frozen=True)
class Plan:
    """Chances are those of a step."""

    nodes: int = 3
    steps: int = 120
    topics: int = 2
    kills: float = 0.05
    deaths: float = 0.0
    """Kills that nobody is told of: the lease runs out."""
    leaves: float = 0.03
    starts: float = 0.1
    behind: float = 0.0
    late: float = 0.0
    """Of exchanges that are interrupted: those of which the log has the first copy later than what follows."""


class Client:
    """A device with a session and one subscription: what it has had, and how often, by what it can know."""

    def __init__(self, name: str, qos: int, subscribed: str = "t/#") -> None:
        parsed = parse_subscription(subscribed)
        assert parsed is not None
        self.name, self.qos, self.subscribed = name, qos, subscribed
        self.group, self._filter = parsed.group, parsed.filter
        self.party: Party | None = None
        self.node = ""
        self.got: list[bytes] = []
        self._ids: dict[bytes, int] = {}

    def wants(self, topic: str) -> bool:
        return matches(self._filter, topic)

    def read(self) -> None:
        """Of QoS 2, one sent again under the packet id that it had is no second one."""
        if self.party is None or not self.party.inbox:
            return
        for packet in self.party.take(Publish):
            repeated = packet.qos == 2 and packet.dup and self._ids.get(packet.payload) == packet.packet_id
            if not repeated:
                self.got.append(packet.payload)
            self._ids[packet.payload] = packet.packet_id


class Simulation:
    """``happened`` counts by word."""

    def __init__(self, bed: ManyBed, seed: int, clients: Sequence[Client], plan: Plan) -> None:
        self.bed, self.clients, self.plan = bed, clients, plan
        self.random = random.Random(seed)
        self.names = [f"n{number}" for number in range(plan.nodes)]
        self.acknowledged: dict[bytes, str] = {}
        """By payload its topic."""
        self.behind: dict[str, float] = {}
        """By node the loop's time until which it hears nothing of the log; ``late`` is when what it writes gets there."""
        self.late: dict[str, float] = {}
        self.happened: Counter[str] = Counter()
        self.also: tuple[Callable[[], None], ...] = ()
        """What else may happen in a step."""
        for name in self.names:
            bed.start(name)
        self.chances = (
            (plan.kills, self.kill),
            (plan.deaths, self.die),
            (plan.leaves, self.leave),
            (plan.starts, self.start),
            (plan.behind, self.hold),
        )

    def begin(self) -> None:
        for client in self.clients:
            self.connect(client)
            assert client.party is not None
            client.party.subscribe(client.subscribed, qos=client.qos)

    def one(self, *, ready: bool = True) -> One:
        """A node that lives; ``ready``: clients don't wait long there."""
        living = [one for one in self.bed.living.values() if not (ready and (one.name in self.behind or one.name in self.late))]
        return self.random.choice(living)

    # What clients do

    def connect(self, client: Client) -> None:
        client.read()
        one = self.one()
        client.party, client.node = one.connect(client.name, **KEPT), one.name
        self.happened["connects"] += 1
        client.read()

    def move(self) -> None:
        self.connect(self.random.choice(self.clients))

    def drop(self) -> None:
        client = self.random.choice(self.clients)
        client.read()
        if client.party is not None and not client.party.closed:
            client.party.drop()

    def publish(self) -> None:
        """Some of it is read at once, some later."""
        name = f"p{self.random.randrange(PUBLISHERS)}"
        publisher = self.one().connect(name, **KEPT)
        for _ in range(self.random.randrange(1, 5)):
            topic, payload = f"t/{self.random.randrange(self.plan.topics)}", b"%d" % len(self.acknowledged)
            if self.random.random() < 0.2:
                publisher = self._interrupted(publisher, name, topic, payload)
            else:
                publisher.exchange(topic, payload, self.random.choice((1, 2, 2, 2)))
            self.acknowledged[payload] = topic
        for client in self.clients:
            client.read()

    def _interrupted(self, publisher: Party, name: str, topic: str, payload: bytes) -> Party:
        """The connection is lost before or behind PUBREC, and the exchange ends on another one, with any node."""
        node = publisher.connection.node.settings.node.id
        known, late = self.random.random() < 0.5, self.random.random() < self.plan.late and not self.few()
        if late:
            self.bed.living[node].link.late = []
            self.late[node] = self.bed.loop.time() + LATE * self.random.random()
            self.happened["late"] += 1
        number = publisher.publish(topic, payload, 2)
        if late:
            self.bed.settle()
            known = False
        elif known:
            self.bed.settle()
            assert publisher.acks(PacketType.PUBREC) == [number]
        elif self.random.random() < 0.5:
            self.bed.settle()
        publisher.drop()
        publisher = self.one().connect(name, **KEPT)
        if not known:
            publisher.publish(topic, payload, 2, dup=True, packet_id=number)
            self.bed.settle()
            assert publisher.acks(PacketType.PUBREC) == [number]
        publisher.ack(PacketType.PUBREL, number)
        self.bed.settle()
        assert publisher.acks(PacketType.PUBCOMP) == [number]
        self.happened["interrupted"] += 1
        return publisher

    # What happens to nodes

    def few(self) -> bool:
        return len(self.bed.living) - len(self.behind.keys() | self.late.keys()) <= max(1, self.plan.nodes // 2)

    def kill(self) -> None:
        if not self.few():
            self._end("kills", self.bed.kill)

    def die(self) -> None:
        if not self.few():
            self._end("deaths", self.bed.sever)

    def _end(self, what: str, end: Callable[[One], None]) -> None:
        for client in self.clients:
            client.read()
        one = self.one(ready=False)
        self.behind.pop(one.name, None)
        self.late.pop(one.name, None)
        end(one)
        self.happened[what] += 1

    def leave(self) -> None:
        if not self.few():
            one = self.one()
            del self.bed.living[one.name]
            self.bed.loop.finish(one.app.stop())
            self.happened["leaves"] += 1

    def start(self) -> None:
        name = next((name for name in self.names if name not in self.bed.living), None)
        node_ids = {node.node for node in self.bed.store._state.cluster.nodes.values() if node.until > self.bed.loop.time() * 1_000 and not node.dead}
        if name is not None and name not in node_ids:
            self.bed.start(name)
            self.happened["starts"] += 1

    def hold(self) -> None:
        if not self.few():
            one = self.one()
            one.link.behind = True
            self.behind[one.name] = self.bed.loop.time() + BEHIND
            self.happened["held back"] += 1

    def _go_on(self) -> None:
        for name, until in list(self.behind.items()):
            if until <= self.bed.loop.time():
                del self.behind[name]
                self.bed.living[name].link.behind = False
        for name, until in list(self.late.items()):
            if until <= self.bed.loop.time():
                del self.late[name]
                self.bed.living[name].link.let_through()

    # Time

    def step(self) -> None:
        self.random.choice((self.move, self.move, self.drop, self.publish, self.publish, self.publish, self.wait, *self.also))()
        for chance, happen in self.chances:
            if self.random.random() < chance:
                happen()
        if self.random.random() < 0.5:
            self.bed.advance(self.random.random() * 0.4)
        self._go_on()

    def wait(self) -> None:
        self.bed.advance(self.random.choice((0.01, 0.1, 0.7, 3)))

    def run(self) -> None:
        self.begin()
        for _ in range(self.plan.steps):
            self.step()
        self.bed.advance(BEHIND if self.behind else LATE)
        self._go_on()
        self.bed.advance(2 * LEASE)
        for client in self.clients:
            self.connect(client)
        self.bed.advance(10)
        for client in self.clients:
            client.read()

    # The verdict

    def problems(self) -> list[str]:
        return [*self._lost(), *self._twice(), *self._out_of_order(), *self._owners(), *self._events()]

    def _lost(self) -> list[str]:
        found, groups = [], dict[str, list[Client]]()
        for client in self.clients:
            groups.setdefault(client.subscribed if client.group else f"of {client.name}", []).append(client)
        for name, members in groups.items():
            had = {payload for client in members for payload in client.got}
            wanted = {payload for payload, topic in self.acknowledged.items() if members[0].wants(topic)}
            found += [f"lost: {name} lacks {payload.decode()}" for payload in wanted - had]
            found += [f"stray: {name} has {payload.decode()}" for payload in had - wanted]
        return found

    def _twice(self) -> list[str]:
        """Where the log holds a publish twice, a node that began to read between the copies can't know the second (streams/repeats.py)."""
        copies = Counter(record.payload for record in self.bed.published() if record.kind == Kind.PUBLISH and record.qos == 2)
        qos_2 = {payload for payload, count in copies.items() if count == 1}
        return [
            f"twice: {client.name} has {payload.decode()} {count} times"
            for client in self.clients
            if client.qos == 2 and not client.group
            for payload, count in Counter(client.got).items()
            if count > 1 and payload in qos_2
        ]

    def _out_of_order(self) -> list[str]:
        """What a member of a shared subscription is passed comes when it comes."""
        lanes = {record.payload: (record.client, record.topic, record.qos) for record in self.bed.published()}
        found = []
        for client in self.clients:
            newest: dict[tuple[str, str, int], int] = {}
            for payload in dict.fromkeys(client.got) if not client.group else ():
                lane, number = lanes[payload], int(payload)
                if number < newest.get(lane, -1):
                    found.append(f"order: {client.name} has {number} behind {newest[lane]}")
                newest[lane] = number
        return found

    def _owners(self) -> list[str]:
        owners = Counter(session.client for one in self.bed.living.values() for session in one.node.registry.sessions.values() if session.id)
        waiting = [one.name for one in self.bed.living.values() if one.node.sharing and one.node.sharing.passing in one.node.registry.resuming]
        return [f"owners: {client} lives on {count} nodes" for client, count in owners.items() if count > 1] + [
            f"waiting: {name}" for name in waiting
        ]

    def _events(self) -> list[str]:
        events = self.bed.all_events()
        return [
            f"events: {client.name} has {cleans} tcpcleans of {connects} connects"
            for client in self.clients
            if (cleans := events[client.name, Kind.TCPCLEAN]) != (connects := events[client.name, Kind.CONNECT]) - 1
        ]
