"""What happens to a fleet, by a seed, and the verdict.

Judged in the end: each session got every record that is owed to it, each publisher's in order (I5, I6); none that it hadn't asked for (I8);
records of a shared subscription came to its members, and to one only where nothing failed; what went out came from the owner (I12). Repeats
without failures are counted, since there should be none (I3).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass

from schemas.positions import At
from schemas.records import Record
from schemas.topics import matches, parse_subscription
from tests.support.fleet import takeover
from tests.support.fleet.clients import Client, Interval
from tests.support.fleet.gateway import Gateway
from tests.support.fleet.router import Router
from tests.support.fleet.sessions import Session
from tests.support.fleet.shared import SharedLog, Slots, Store

ROUND = 50
HELD_MS = 20_000
STOPPED_MS = 30_000
HEALING = (1_000, 400)
"""Rounds before each client connects, twice."""


@dataclass
class Plan:
    nodes: int = 5
    clients: int = 24
    shards: int = 4
    topics: int = 6
    wild: float = 0.3
    """Of the subscriptions, those with a filter for many topics."""
    groups: int = 2
    """Shared subscriptions, of one member and of four in turn."""
    rounds: int = 1_200
    publishes: float = 3.0
    """A round."""
    moves: float = 0.5
    """Client actions a round: they connect, disconnect, subscribe and unsubscribe."""
    abrupt: float = 0.5
    """Of the connections that end by a new one elsewhere: those of which the node before isn't told."""
    kills: float = 0.01
    stops: float = 0.004
    leaves: float = 0.006
    holds: float = 0.005
    """Routers held back for 20 s, with their node alive."""
    joins: float = 0.03
    delay: int = 120
    repeats: float = 0.02
    loss: float = 0.0
    """Of messages of the downlink; not with groups, whose commands have to arrive."""

    @property
    def calm(self) -> bool:
        return not (self.kills or self.stops or self.leaves or self.holds or self.loss or self.abrupt)


class Simulation:
    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.random = plan, random.Random(seed)
        self.now = 1_000
        self.log, self.store = SharedLog(plan.shards), Store()
        self.slots = Slots(self.random, delay=plan.delay, repeats=plan.repeats, loss=plan.loss)
        self.nodes: dict[int, tuple[Gateway, Router]] = {}
        self.members = {f"g{group}m{number}": f"$share/g{group}/s/{group}/#" for group in range(plan.groups) for number in range(1 + group % 2 * 3)}
        names = [*(f"c{number}" for number in range(plan.clients)), *self.members]
        self.clients = {name: Client(name) for name in names}
        self.published: list[tuple[At, Record]] = []
        self._matching: dict[str, list[tuple[At, Record]]] = {}
        self.problems: list[str] = []
        self.happened: Counter[str] = Counter()
        self.chances = [
            (plan.kills, self.kill),
            (plan.stops, self.stop),
            (plan.leaves, self.leave),
            (plan.holds, self.hold),
            (plan.joins, self.join),
        ]

    # Nodes

    def living(self) -> list[Gateway]:
        return [gateway for gateway, _ in self.nodes.values() if gateway.paused_until <= self.now]

    def start(self, name: str) -> None:
        gateway = Gateway(name, self.log, self.store, self.slots, self.random, self.now)
        self.nodes[gateway.epoch] = (gateway, Router(gateway))

    def any(self) -> Gateway:
        return self.random.choice(self.living())

    def filter(self) -> str:
        return self.random.choice(("t/#", "t/+", "#")) if self.random.random() < self.plan.wild else f"t/{self.random.randrange(self.plan.topics)}"

    def few(self) -> bool:
        return len(self.living()) <= max(2, self.plan.nodes // 2)

    def kill(self) -> None:
        if not self.few():
            self.happened["kill"] += 1
            gateway = self.any()
            self._stick(gateway)
            self._lose(self.nodes.pop(gateway.epoch)[0])

    def _lose(self, gateway: Gateway) -> None:
        gateway.running = False
        for client in self.clients.values():
            if client.session is not None and client.session.node == gateway.epoch:
                client.session = None

    def stop(self) -> None:
        """SIGSTOP: its clients stay connected for a while."""
        if not self.few():
            self.happened["stop"] += 1
            gateway = self.any()
            self._stick(gateway)
            gateway.paused_until = self.now + STOPPED_MS

    def hold(self) -> None:
        self.happened["hold"] += 1
        gateway = self.any()
        self._stick(gateway)
        self.nodes[gateway.epoch][1].held_until = self.now + HELD_MS

    def _stick(self, gateway: Gateway) -> None:
        """What a node has sent is held back as well, somewhere on the way."""
        for half in ("r", "g"):
            self.slots.stick(f"{gateway.epoch}{half}", HELD_MS)

    def leave(self) -> None:
        """A planned end: the router first, then the sessions; what is left over others take."""
        if not self.few():
            self.happened["leave"] += 1
            gateway, router = self.nodes.pop(self.any().epoch)
            router.leave()
            gateway.leave()

    def join(self) -> None:
        running = {gateway.name for gateway, _ in self.nodes.values()}
        name = next((name for number in range(self.plan.nodes) if (name := f"n{number}") not in running), None)
        if name is not None:
            self.happened["join"] += 1
            self.start(name)

    # Clients

    def act(self) -> None:
        client = self.random.choice(list(self.clients.values()))
        session = client.session
        gateway = self.nodes[session.node][0] if session is not None and session.node in self.nodes else None
        if gateway is None or session is None:
            self.connect(client, self.any())
        elif gateway.paused_until > self.now:
            client.session = None  # no answer: it will try another one
        elif self.random.random() < 0.2:
            if self.random.random() < self.plan.abrupt:
                client.session = None  # nobody tells the node
            else:
                gateway.disconnect(session)
        elif self.random.random() < 0.25:
            self.connect(client, self.any())
        elif session.gap is None and client.name not in self.members:
            self._resubscribe(client, gateway, session)

    def _resubscribe(self, client: Client, gateway: Gateway, session: Session) -> None:
        if client.wanted and (len(client.wanted) > 2 or self.random.random() < 0.4):
            subscribed = self.random.choice(sorted(client.wanted))
            client.wanted.discard(subscribed)
            for interval in client.owed:
                if interval.subscribed == subscribed and interval.stop is None:
                    # What is on its way to the node is not owed any more [MQTT-3.10.4-2]
                    reached = gateway.marks.reached
                    interval.stop = {shard: max(at, session.floor.get(shard, at)) for shard, at in reached.items()}
                    if subscribed not in session.subs:
                        self.problems.append(f"lost: {client.name} has no subscription {subscribed} any more")
                    elif session.subs[subscribed].late:
                        interval.stop = interval.start
            if subscribed in session.subs:
                gateway.unsubscribe(session, subscribed)
        else:
            subscribed = self.filter()
            self._subscribe(client, session, subscribed)

    def _subscribe(self, client: Client, session: Session, subscribed: str) -> None:
        client.wanted.add(subscribed)
        client.asked.add(subscribed)
        self.nodes[session.node][0].subscribe(session, subscribed, self.now)

    def connect(self, client: Client, gateway: Gateway) -> None:
        before = client.session
        if before is not None and self.random.random() >= self.plan.abrupt and before.node in self.nodes:
            self.nodes[before.node][0].disconnect(before)
        gateway.connect(client)

    def publish(self) -> None:
        number = len(self.published)
        group = self.random.randrange(self.plan.groups) if self.plan.groups and self.random.random() < 0.4 else None
        topic = f"t/{self.random.randrange(self.plan.topics)}" if group is None else f"s/{group}/{self.random.randrange(3)}"
        at = self.log.append(f"p{self.random.randrange(4)}", topic, number)
        self.published.append((at, self.log.shards[at.shard][at.index]))

    # Time

    def round(self, *, quiet: bool = False) -> None:
        self.now += ROUND
        self.store.notice(self.now)
        self.slots.advance(self.now)
        if not quiet:
            for _ in range(self._times(self.plan.publishes)):
                self.publish()
            for _ in range(self._times(self.plan.moves)):
                self.act()
            for chance, happen in self.chances:
                if self.random.random() < chance:
                    happen()
        turns = [half for gateway, router in self.nodes.values() for half in (gateway, router)]
        self.random.shuffle(turns)
        for half in turns:
            if isinstance(half, Router):
                if half.gateway.running and half.gateway.paused_until <= self.now and half.held_until <= self.now:
                    half.turn(self.now)
            elif half.running and half.paused_until <= self.now:
                half.turn(self.now)
        for epoch in [epoch for epoch, (gateway, _) in self.nodes.items() if not gateway.running]:
            self._lose(self.nodes.pop(epoch)[0])
        self._take_over()

    def _times(self, mean: float) -> int:
        return int(mean) + (self.random.random() < mean % 1)

    def _take_over(self) -> None:
        living = [gateway for gateway in self.living() if gateway.epoch not in self.store.dead]
        if self.store.dead and living:
            takeover.lead(living[0], self.now)
            takeover.adopt(self.random.choice(living), self.clients)

    def run(self) -> Simulation:
        for number in range(self.plan.nodes):
            self.start(f"n{number}")
        for _ in range(20):
            self.round(quiet=True)
        for client in self.clients.values():
            self.connect(client, self.any())
            session = client.session
            assert session is not None
            first = self.members.get(client.name) or self.filter()
            self._subscribe(client, session, first)
        for _ in range(20):
            self.round(quiet=True)
        for _ in range(self.plan.rounds):
            self.round()
        self._heal()
        self._judge()
        return self

    def _heal(self) -> None:
        """Nothing more happens: stopped nodes wake up and routers go on, the dead are buried, and each client connects once more."""
        while len(self.nodes) < 2:
            self.join()
        for rounds in HEALING:
            for _ in range(rounds):
                self.round(quiet=True)
            for client in self.clients.values():
                client.session = None
                self.any().connect(client)
        for _ in range(HEALING[-1]):
            self.round(quiet=True)

    # The verdict

    def _judge(self) -> None:
        had = {name: Counter(record.time for record in client.got) for name, client in self.clients.items()}
        for name, client in self.clients.items():
            for interval in client.owed:
                if name not in self.members:
                    self._judge_interval(name, interval, had[name])
            self._judge_order(name, client)
            if client.stale:
                self.problems.append(f"stale: {name} got {client.stale} from a node that had lost its session")
        self._judge_groups(had)

    def _judge_interval(self, name: str, interval: Interval, had: Counter[int]) -> None:
        if interval.subscribed not in self._matching:
            self._matching[interval.subscribed] = [each for each in self.published if matches(interval.subscribed, each[1].topic)]
        for at, record in self._matching[interval.subscribed]:
            inside = at >= interval.start[at.shard] and (interval.stop is None or at < interval.stop[at.shard])
            if inside and not had[record.time]:
                self.problems.append(f"lost: {name} was owed {record.time} ({record.topic} at {at}) by {interval.subscribed}")

    def _judge_order(self, name: str, client: Client) -> None:
        lanes: dict[tuple[str, str], int] = defaultdict(lambda: -1)
        seen: set[int] = set()
        for record in client.got:
            if record.time in seen:
                self.happened["repeats"] += 1
                if self.plan.calm and not self.plan.moves:
                    self.problems.append(f"repeat: {name} got {record.time} twice")
                continue
            seen.add(record.time)
            lane = (record.client, record.topic)
            # Members' records that are handed on, since a member moved, come when they come
            if record.time < lanes[lane] and (name not in self.members or not self.plan.moves):
                self.problems.append(f"order: {name} got {record.time} behind {lanes[lane]} of {lane}")
            lanes[lane] = max(lanes[lane], record.time)
            if not any((parsed := parse_subscription(each)) is not None and matches(parsed.filter, record.topic) for each in client.asked):
                self.problems.append(f"stray: {name} got {record.time} of {record.topic}")

    def _judge_groups(self, had: dict[str, Counter[int]]) -> None:
        for group in range(self.plan.groups):
            names = [name for name in self.members if name.startswith(f"g{group}m")]
            for _, record in self.published:
                if record.topic.startswith(f"s/{group}/"):
                    times = sum(had[name][record.time] > 0 for name in names)
                    if not times:
                        self.problems.append(f"lost: no member of group {group} got {record.time}")
                    elif times > 1:
                        self.happened["shared twice"] += 1
                        if self.plan.calm:
                            self.problems.append(f"twice: {times} members of group {group} got {record.time}")
