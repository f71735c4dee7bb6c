"""Three gateways over one log and one database, and everybody who talks to them, while gateways are killed, stand still and lose their log's answers.

Publishers and subscribers have sessions that go from node to node; sentinels have none and tell by a will that their connection was lost. Who
was connected to a node that is struck comes to another at once, before its death is known, or keeps away for longer than that takes.
Knows nothing of what the log is on.
"""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from gateway.protocol.packets import Ack, Disconnect, Packet, Publish
from tests.support.actors import Actor, PersistentSubscriber, Publisher
from tests.support.chaos_proxy import BlackHole, ChaosProxy, CutAnswers
from tests.support.gateway import Endpoint, Gateway
from tests.support.ledger import Ledger, Sent, read_stamp, stamp
from tests.support.many_devices import Devices
from tests.support.party import will
from tests.support.wire import Clients, Wire

FEW = 18
"""Clients that every world has; the rest are devices."""
RATE = 400.0
"""Publishes a second of all publishers, of which devices have a half if there are any."""
LEASE = 6.0
"""Seconds until a node that says nothing is given up."""
SETTLE_WITHIN = 30.0
STARTS_WITHIN = 60.0
"""Nothing is measured by it: two others and all clients have the machine meanwhile."""
EXITS_WITHIN = 20.0
"""Seconds for a gateway that has lost its place to end."""
CUT = "answers of the log are lost"
CUT_FOR = 1.5


def under(prefix: str) -> Callable[[Sent], bool]:
    return lambda sent: sent.topic.startswith(prefix)


class Sentinel(Actor):
    """Each of its connections has a will of its own in the ledger, which counts as acknowledged when the connection's gateway is struck."""

    def __init__(self, ledger: Ledger, clients: Clients, name: str, home: str) -> None:
        super().__init__(ledger, clients, name, version=5)
        self.home = home
        self.seq = -1

    async def connect(self, endpoint: Endpoint) -> None:
        self.seq += 1
        topic, payload = f"wills/{self.name}", stamp(self.name, self.seq)
        self.ledger.send(self.name, self.seq, topic, 2, payload, self._now())
        self.wire = await self._clients.connect(endpoint, self.name, will=will(topic, payload, qos=2), within=10.0)
        self._attend(self.wire)

    def struck(self) -> None:
        self.ledger.ack(self.name, self.seq, self._now())

    def _take(self, packet: Packet) -> None:
        if not isinstance(packet, Disconnect) or packet.reason_code not in self.endings:
            self.problems.append(f"{self.name}: {packet}")


class Strike(NamedTuple):
    """What happened when to whom; ``at`` in the loop's time, ``wall`` in ms."""

    at: float
    wall: int
    what: str
    node: str
    survivors: tuple[Publisher, ...]
    """Publishers that were connected to other nodes."""
    moved: tuple[PersistentSubscriber, ...]
    devices: tuple[Actor, ...]
    """Those of them that have to come elsewhere too."""


class ManyWorld:
    """``at`` is where an actor is connected. ``proxy`` lies between one node and the log."""

    def __init__(
        self, gateways: Mapping[str, Gateway], clients: Clients, seed: int, proxied: str, proxy: ChaosProxy | None, *, size: int = FEW
    ) -> None:
        self.living = dict(gateways)
        self.seed, self.chance = seed, random.Random(seed)
        self.ledger = ledger = Ledger()
        self.publishers = [Publisher(ledger, clients, f"publisher{n}", ["load/a", f"load/{n}"], version=4 + n % 2) for n in range(4)]
        self.subscribers = [
            PersistentSubscriber(ledger, clients, f"subscriber{n}", ["load/#"], under("load/"), version=5 - n % 2, qos=1 + n % 2) for n in range(4)
        ]
        self.watcher = PersistentSubscriber(ledger, clients, "watcher", ["wills/#"], under("wills/"), version=5, qos=2)
        # Together they have everything: each has a ledger of its own, in which nobody looks
        self.crew = [PersistentSubscriber(Ledger(), clients, f"crew{n}", ["$share/crew/load/#"], under("load/"), version=5, qos=1) for n in range(3)]
        self.sentinels = [Sentinel(ledger, clients, f"sentinel{n}-{home}", home) for home in gateways for n in range(2)]
        self.devices = Devices(ledger, clients, size - FEW)
        self.at: dict[Actor, str] = {}
        self.came: dict[Actor, list[float]] = defaultdict(list)
        """When it was connected, each time."""
        self.strikes: list[Strike] = []
        self.stale: list[Packet] = []
        """What a gateway said after it had stood still for longer than its lease."""
        self._proxied, self._proxy = proxied, proxy
        self._connecting = asyncio.Lock()

    @property
    def actors(self) -> list[Actor]:
        """But those that are away because they want to be."""
        return [*self.publishers, *self.subscribers, *self.crew, self.watcher, *self.sentinels, *self.devices.present]

    @property
    def publishing(self) -> list[Publisher]:
        return [*self.publishers, *self.devices.publishers]

    async def begin(self) -> None:
        """Everybody is connected: sentinels to all nodes, the others anywhere."""
        for actor in [*self.subscribers, *self.crew, self.watcher, *self.publishers]:
            await self._connect(actor)
        for sentinel in self.sentinels:
            await self._connect(sentinel, sentinel.home)
        await self._move(self.devices.subscribers)
        await self._move(self.devices.publishers)

    async def _connect(self, actor: Actor, name: str = "") -> None:
        async with self._connecting:
            name = name or self.chance.choice(list(self.living))
            await self._come(actor, name)

    async def _come(self, actor: Actor, name: str) -> None:
        await actor.connect(self.living[name].mqtt)
        self.at[actor] = name
        self.came[actor].append(asyncio.get_running_loop().time())

    async def load(self, seconds: float, *, roaming: bool = True) -> None:
        """Publishers publish, QoS 1 and 2; subscribers go from node to node, or stay."""
        end = asyncio.get_running_loop().time() + seconds
        each_rate = RATE / len(self.publishers) / (2 if self.devices.publishers else 1)
        runs = [asyncio.create_task(publisher.run(1 + n % 2, each_rate)) for n, publisher in enumerate(self.publishers) if publisher.online]
        runs += self.devices.run(RATE / 2)
        try:
            while asyncio.get_running_loop().time() < end:
                await asyncio.sleep(self.chance.uniform(0.2, 0.5))
                able = [each for each in (*self.subscribers, *self.crew) if each.online and self.at[each] in self.living]
                if able and roaming:
                    await self._connect(self.chance.choice(able))
                    await self._roam()
        finally:
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)

    async def _roam(self) -> None:
        """A device goes away, or comes back."""
        async with self._connecting:
            if (device := self.devices.next(self.chance)) is not None and device.online:
                if self.at[device] in self.living:
                    await self.devices.leave(device)
            elif device is not None:
                await self._come(device, self.chance.choice(list(self.living)))
                del self.devices.away[device]

    # Strikes

    async def kill(self, *, at_once: bool) -> None:
        """kill -9 of one; then it starts again."""
        name = self.chance.choice(list(self.living))
        gateway = self.living[name]
        running = asyncio.create_task(self.load(self.chance.uniform(0.5, 2.0)))
        await asyncio.sleep(self.chance.uniform(0.3, 0.5))
        del self.living[name]
        strike = self._strike(f"kill, clients come {'at once' if at_once else 'when it is given up'}", name)
        await asyncio.to_thread(gateway.kill)
        await asyncio.gather(running, return_exceptions=True)
        for actor in self._of(name):
            if actor.wire is not None:
                await actor.wire.lost.wait()
        self._struck(strike)
        # Also one that was just then on its way to the dead one
        moving = [actor for actor in self.actors if not actor.online]
        if not at_once:
            await self.load(LEASE)
        await self._move(moving)
        await self.load(1.0)
        await self._back(name, gateway)

    async def stand_still(self, seconds: float, before: Callable[[str], Awaitable[None]], goes_on: Callable[[Strike], Awaitable[None]]) -> None:
        """SIGSTOP of one, for no less than its lease: its clients have sent to it still, and leave their connections as they are."""
        name = self.chance.choice(list(self.living))
        gateway = self.living[name]
        await before(name)
        await self._gather(name, self.publishers[1], self.subscribers[1])
        running = asyncio.create_task(self.load(1.0))
        await asyncio.sleep(self.chance.uniform(0.3, 0.5))
        async with self._connecting:  # nobody waits for an answer that doesn't come
            del self.living[name]
            strike = self._strike("SIGSTOP", name)
            gateway.signal(signal.SIGSTOP)
        await asyncio.gather(running, return_exceptions=True)
        await self.load(0.5)
        moving = self._of(name)
        for actor in moving:
            self._leave_behind(actor)
        self._struck(strike)
        await self._move(moving)
        await self.load(seconds - (asyncio.get_running_loop().time() - strike.at))
        await goes_on(strike)
        gateway.signal(signal.SIGCONT)
        assert await asyncio.to_thread(gateway.wait, EXITS_WITHIN) == 1, f"{name} has lost its place and did not end for it"
        await self.load(0.5)
        await self._back(name, gateway)

    async def cut_answers(self) -> None:
        """The log serves the proxied node's requests, and its answers are lost; all of its publishers but one don't wait for them to come back."""
        name, proxy = self._proxied, self._proxy
        assert proxy is not None
        gateway = self.living[name]
        await self._gather(name, *self.publishers[1:])
        running = asyncio.create_task(self.load(1.0))
        await asyncio.sleep(self.chance.uniform(0.3, 0.5))
        del self.living[name]
        strike = self._strike(CUT, name)
        toxic = self.chance.choice((CutAnswers(), BlackHole()))
        proxy.add(toxic, "down")
        await asyncio.gather(running, return_exceptions=True)
        await self.load(CUT_FOR / 2)
        going = [publisher for publisher in self.publishers if self.at[publisher] == name][:-1]
        for publisher in going:
            self._give_up(publisher)
        self.strikes[-1] = strike._replace(survivors=tuple(p for p in strike.survivors if p not in going))
        await self._move(going)
        await self.load(CUT_FOR / 2)
        proxy.remove(toxic, "down")
        proxy.cut_all()
        self.living[name] = gateway
        await self.load(2.0)

    async def outage(self, what: str, goes: Callable[[], object], seconds: float, comes: Callable[[], object]) -> dict[str, bool]:
        """Something that all gateways stand on, or a part of it, is away for so long; nobody is asked to connect meanwhile.

        ``goes`` and ``comes`` block. The strike is at the moment when it is back. Who published meanwhile, and whether any of it was
        acknowledged then.
        """
        running = asyncio.create_task(self.load(self.chance.uniform(0.5, 1.5)))
        await asyncio.sleep(self.chance.uniform(0.3, 0.5))
        async with self._connecting:
            await asyncio.to_thread(goes)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            since = asyncio.get_running_loop().time()
            self.ledger.disrupt(since)
            await self.load(seconds, roaming=False)
            served: dict[str, bool] = {}
            for entry in self.ledger.sent.values():
                if entry.sent_at > since and entry.qos:
                    served[entry.client] = served.get(entry.client, False) or entry.acked_at is not None
            away = asyncio.create_task(self.load(STARTS_WITHIN, roaming=False))
            await asyncio.to_thread(comes)
            away.cancel()
            await asyncio.gather(away, return_exceptions=True)
        self._strike(what, "")
        await self.load(3.0, roaming=False)
        await self._move(self.actors)
        await self.load(1.0)
        return served

    async def _gather(self, name: str, *sessions: Publisher | PersistentSubscriber) -> None:
        """They come to one node."""
        for actor in sessions:
            if self.at[actor] != name:
                if isinstance(actor, Publisher) and actor.online:
                    self._give_up(actor)
                await self._connect(actor, name)

    async def _back(self, name: str, gateway: Gateway) -> None:
        """It serves again, and has its sentinels, which other nodes lose by that, and its part of the devices."""
        await asyncio.to_thread(gateway.start, within=STARTS_WITHIN)
        self.living[name] = gateway
        for sentinel in self.sentinels:
            if sentinel.home == name:
                sentinel.struck()
                await self._connect(sentinel, name)
        async with self._connecting:
            coming = [device for device in self.devices.present if self.chance.random() < 1 / len(self.living)]
            for device in coming:
                if isinstance(device, Publisher) and device.online:
                    self._give_up(device)
            await asyncio.gather(*(self._come(device, name) for device in coming))

    def _of(self, name: str) -> list[Actor]:
        return [actor for actor in self.actors if self.at[actor] == name]

    def _strike(self, what: str, name: str) -> Strike:
        survivors = tuple(publisher for publisher in self.publishing if self.at[publisher] != name)
        moved = tuple(s for s in self.subscribers if self.at[s] == name) if what != CUT else ()
        devices = tuple(device for device in self.devices.present if self.at[device] == name) if what != CUT else ()
        strike = Strike(asyncio.get_running_loop().time(), int(time.time() * 1000), what, name, survivors, moved, devices)
        self.strikes.append(strike)
        return strike

    def _struck(self, strike: Strike) -> None:
        self.ledger.disrupt(asyncio.get_running_loop().time())
        for sentinel in self.sentinels:
            if self.at[sentinel] == strike.node:
                sentinel.struck()

    def _leave_behind(self, actor: Actor) -> Wire:
        """The device has given its connection up, which knows nothing of that. What it still hears is of before the strike, or stale."""
        wire, actor.wire = actor.wire, None
        assert wire is not None
        since, pending = self.strikes[-1].at if self.strikes else 0.0, actor.pending()

        def heard(packet: Packet) -> None:
            known = self.ledger.sent.get(read_stamp(packet.payload) or ("", -1)) if isinstance(packet, Publish) else None
            if isinstance(packet, Ack) and packet.packet_id in pending:
                known = self.ledger.sent.get((actor.name, pending[packet.packet_id]))
            # A process that is stopped may be just about to write: uvloop writes at the end of its turn
            if known is None or known.sent_at > since:
                self.stale.append(packet)

        wire.on_packet = heard
        return wire

    def _give_up(self, actor: Actor) -> None:
        """Its connection ends here; what was read of it already doesn't matter."""
        wire = self._leave_behind(actor)
        wire.on_packet = lambda packet: None
        wire.abort()

    async def _move(self, actors: Iterable[Actor]) -> None:
        """All at once, as devices would."""
        async with self._connecting:
            ways = [(actor, self.chance.choice(list(self.living))) for actor in actors if not actor.online]
            await asyncio.gather(*(self._come(actor, name) for actor, name in ways))

    # The end

    @contextmanager
    def summed_up(self) -> Iterator[None]:
        """How much there was is printed, however it ends."""
        try:
            yield
        finally:
            takeovers = sum(subscriber.takeovers for subscriber in self.subscribers)
            published = f"published {len(self.ledger.sent)}, acknowledged {self.ledger.acked()}"
            print(f"seed {self.seed}, {len(self.strikes)} strikes, {published}, takeovers {takeovers}")

    async def settle(self) -> None:
        """All is acknowledged and delivered."""
        self.devices.away.clear()
        await self._move(self.actors)
        for publisher in self.publishing:
            await publisher.finish(SETTLE_WITHIN)
        acked = [entry for entry in self.ledger.sent.values() if entry.acked_at is not None]
        end = asyncio.get_running_loop().time() + SETTLE_WITHIN
        while lacking := self._lacking(acked):
            if asyncio.get_running_loop().time() > end:
                shown = [f"{name} lacks {len(still)}, first {still[0].client}/{still[0].seq}" for name, still in lacking]
                raise AssertionError(f"not delivered within {SETTLE_WITHIN} s: {'; '.join(shown)}")
            await asyncio.sleep(0.05)

    def _lacking(self, acked: Sequence[Sent]) -> list[tuple[str, list[Sent]]]:
        found = [(each.name, each.lacks(acked)) for each in (*self.subscribers, self.watcher)]
        had = set[bytes]().union(*(member.held for member in self.crew))
        found.append(("crew", [entry for entry in acked if self.crew[0].record.wants(entry) and entry.digest not in had]))
        found += self.devices.lacking(acked)
        return [(name, still) for name, still in found if still]

    def pauses(self) -> list[tuple[Strike, float, float]]:
        """By strike: seconds until publishes by all survivors were acknowledged again, and until each moved session lived: had something new,
        or, if it is a device's, was resumed.

        A survivor that has sent nothing since had nothing to wait for.
        """
        by_client: dict[str, list[Sent]] = defaultdict(list)
        for entry in self.ledger.sent.values():
            by_client[entry.client].append(entry)
        found = []
        for strike in self.strikes:
            sent = [[entry for entry in by_client[publisher.name] if entry.sent_at > strike.at and entry.qos] for publisher in strike.survivors]
            acks = [min((entry.acked_at for entry in entries if entry.acked_at), default=math.inf) for entries in sent if entries]
            lives = [self._has_news(each, strike.at) for each in strike.moved]
            lives += [next(at for at in self.came[device] if at > strike.at) for device in strike.devices]
            goes_on = max(acks, default=strike.at) - strike.at
            found.append((strike, goes_on, max(lives, default=strike.at) - strike.at))
        return found

    def _has_news(self, subscriber: PersistentSubscriber, since: float) -> float:
        sent = self.ledger.sent
        return next(r.at for r in subscriber.record.receipts if r.at > since and (r.client, r.seq) in sent and sent[r.client, r.seq].sent_at > since)
