"""Nodes that start, leave and are killed while sessions go from one to another and messages flow: by a seed, in time that stands still.

What is judged in the end: whatever was acknowledged came to every session that was subscribed, QoS 2 once, and each publisher's messages
in order; each connection had one tcpclean; no session lives on two nodes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from gateway.protocol.packets import Publish
from schemas.records import Kind
from tests.support.many_bed import ManyBed, One
from tests.support.party import Party

Make = Callable[..., ManyBed]
KEPT = {"clean_start": False, "session_expiry": 86_400}
NODES = ("one", "two", "three")
STEPS = 120


class Client:
    """A device with a session: what it has had, and how often, by what it can know."""

    def __init__(self, name: str, qos: int, topic_filter: str = "t/#") -> None:
        self.name, self.qos, self.filter = name, qos, topic_filter
        self.party: Party | None = None
        self.got: list[bytes] = []
        self._ids: dict[bytes, int] = {}

    def read(self) -> None:
        """Of QoS 2, one sent again under the packet id that it had is no second one."""
        for packet in self.party.take(Publish) if self.party is not None else ():
            repeated = packet.qos == 2 and packet.dup and self._ids.get(packet.payload) == packet.packet_id
            if not repeated:
                self.got.append(packet.payload)
            self._ids[packet.payload] = packet.packet_id


class Simulation:
    def __init__(self, bed: ManyBed, seed: int, *clients: Client) -> None:
        self.bed = bed
        self.random = random.Random(seed)
        self.clients = clients
        self.acknowledged: list[bytes] = []
        self.connections = 0
        for name in NODES:
            bed.start(name)
        for client in self.clients:
            self.connect(client)
            assert client.party is not None
            client.party.subscribe(client.filter, qos=client.qos)
        self.actions = [self.move, self.move, self.drop, self.publish, self.publish, self.publish, self.kill, self.start, self.leave, self.wait]

    def one(self) -> One:
        return self.random.choice(list(self.bed.living.values()))

    def connect(self, client: Client) -> None:
        client.read()
        client.party = self.one().connect(client.name, **KEPT)
        self.connections += 1
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
        node = self.one()
        publisher = node.connect(f"p{self.random.randrange(3)}")
        for _ in range(self.random.randrange(1, 5)):
            payload = b"%d" % len(self.acknowledged)
            publisher.exchange(f"t/{self.random.randrange(2)}", payload, self.random.choice((1, 2)) if self.random.random() < 0.2 else 2)
            self.acknowledged.append(payload)
        for client in self.clients:
            client.read()

    def kill(self) -> None:
        if len(self.bed.living) > 1 and self.random.random() < 0.5:
            for client in self.clients:
                client.read()
            self.bed.kill(self.one())

    def leave(self) -> None:
        if len(self.bed.living) > 1 and self.random.random() < 0.3:
            one = self.one()
            del self.bed.living[one.name]
            self.bed.loop.finish(one.app.stop())

    def start(self) -> None:
        for name in NODES:
            if name not in self.bed.living:
                self.bed.start(name)
                return

    def wait(self) -> None:
        self.bed.advance(self.random.choice((0.01, 0.1, 0.7, 3)))

    def run(self) -> None:
        for _ in range(STEPS):
            self.random.choice(self.actions)()
            if self.random.random() < 0.5:
                self.bed.advance(self.random.random() * 0.4)
        self.bed.advance(10)
        for client in self.clients:
            self.connect(client)
        self.bed.advance(10)
        for client in self.clients:
            client.read()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_nothing_acknowledged_is_lost_whatever_happens_to_nodes(make_many: Make, seed: int) -> None:
    bed = make_many()
    simulation = Simulation(bed, seed, Client("once", 2), Client("twice", 1), Client("idle", 2))
    simulation.run()
    for client in simulation.clients:
        counts = Counter(client.got)
        assert set(simulation.acknowledged) == set(counts), client.name
    qos_2 = {record.payload for record in bed.published() if record.kind == Kind.PUBLISH and record.qos == 2}
    for client in simulation.clients:
        if client.qos == 2:
            counts = Counter(payload for payload in client.got if payload in qos_2)
            assert [payload for payload, count in counts.items() if count > 1] == [], client.name
    lanes = {record.payload: (record.client, record.topic, record.qos) for record in bed.published()}
    for client in simulation.clients:
        firsts = [int(payload) for payload in dict.fromkeys(client.got)]
        for lane in set(lanes.values()):
            mine = [number for number in firsts if lanes[b"%d" % number] == lane]
            assert mine == sorted(mine), (client.name, lane)
    owners = Counter(session.client for one in bed.living.values() for session in one.node.registry.sessions.values() if session.id)
    assert set(owners.values()) == {1}, owners
    for client in simulation.clients:
        events = Counter(bed.events(client.name))
        assert events[Kind.TCPCLEAN] == events[Kind.CONNECT] - 1, client.name


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_each_record_comes_to_a_member_of_a_shared_subscription(make_many: Make, seed: int) -> None:
    """Members come, go and move; of some groups there is one, which is on its way from node to node at times."""
    bed = make_many()
    groups = [[Client(f"{group}{number}", 1 + number % 2, f"$share/{group}/t/#") for number in range(count)] for group, count in (("a", 1), ("b", 4))]
    simulation = Simulation(bed, seed, Client("plain", 2), *groups[0], *groups[1])
    simulation.run()
    acknowledged = set(simulation.acknowledged)
    assert set(simulation.clients[0].got) == acknowledged
    for group in groups:
        assert {payload for client in group for payload in client.got} == acknowledged, group[0].filter
    assert not any(one.node.sharing is not None and one.node.sharing.passing in one.node.registry.resuming for one in bed.living.values())
