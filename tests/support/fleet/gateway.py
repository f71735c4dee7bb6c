"""A node's half with sessions: reads its slot, delivers, stores, brings up sessions that come, and says where it stands."""

from __future__ import annotations

import random
from collections.abc import Iterable

from schemas.positions import At
from schemas.records import Record
from schemas.sessions import Subscription
from schemas.topics import parse_subscription
from streams.cluster import LEASE_MS, RENEW_MS
from streams.resuming import OpenGap, hold
from streams.routes import Routes
from streams.routing.handing import Handing
from streams.routing.messages import Message, Routed
from streams.routing.node_routes import NodeRoutes
from streams.routing.own_routes import OwnRoutes
from streams.routing.watermarks import Watermarks
from streams.shared import Member, choose
from tests.support.fleet.clients import Client, Interval
from tests.support.fleet.sessions import Joining, Session, Sub
from tests.support.fleet.shared import SharedLog, Slots, Store

SUBACK_MS = 1_000
SLOT_A_TURN = 500
GAP_A_TURN = 60


class Gateway:
    def __init__(self, name: str, log: SharedLog, store: Store, slots: Slots, rng: random.Random, now: int) -> None:
        self.name, self.log, self.store, self.slots, self.random = name, log, store, slots, rng
        self.epoch = store.join(name, now, log.ends())
        self.running, self.began = True, now
        self.paused_until = 0
        self._held_until, self._renewed = now + LEASE_MS, now
        self.routes = NodeRoutes()
        self.own = OwnRoutes(self.epoch)
        self.marks = Watermarks(log.ends())
        self.handing = Handing(self.routes, self.epoch)
        self.taking: dict[int, Handing] = {}
        """By dead node, what its slot had."""
        self.sessions: dict[str, Session] = {}
        self.local: Routes[Session, str, None] = Routes()
        self.members: dict[str, dict[Session, None]] = {}
        self.joinings: list[Joining] = []
        self.pending: list[tuple[Session, Sub]] = []
        self.read = 0
        self.holes = self.early_subacks = self.gap_reads = 0

    # What clients do

    def connect(self, client: Client) -> None:
        session = self.arrive([client])[0]
        client.session, client.acks = session, []
        session.sent.clear()
        if not session.online:
            session.online = True
            self._tell_online(session, 1)
        if session.gap is None:
            self._drain(session)

    def arrive(self, clients: Iterable[Client]) -> list[Session]:
        found, coming, newest = [], [], 0
        gap: OpenGap[Session] = OpenGap(self.marks.reached)
        for client in clients:
            row = self.store.claim(client.name, self.epoch)
            known = self.sessions.get(client.name)
            if known is not None and known.epoch == row.epoch - 1 and row.resume is None:
                self._store_unsettled(known, row.epoch)
                known.epoch = row.epoch
                found.append(known)
                continue
            if known is not None:
                self.let_go(known)
            session = self.sessions[client.name] = Session(client, self.epoch, row.epoch, floor=dict(row.floor))
            found.append(session)
            for subscribed, since in row.subscriptions.items():
                session.subs[subscribed] = Sub(subscribed, 0, dict(since), answered=True)
                newest = max(newest, self._put(session, subscribed))
            if row.resume is not None:
                session.gap = gap
                subscriptions = [Subscription(sub.subscribed, 1, since=tuple(sub.places.values())) for sub in session.subs.values()]
                gap.add(session, row.resume.values(), subscriptions)
                coming.append(session)
        if coming:
            self.joinings.append(Joining(gap, self.marks.wait(newest), coming))
        return found

    def subscribe(self, session: Session, subscribed: str, now: int) -> None:
        if subscribed in session.subs:
            return
        wait = self.marks.wait(self._put(session, subscribed))
        sub = session.subs[subscribed] = Sub(subscribed, now, wait.places, wait)
        self.pending.append((session, sub))

    def unsubscribe(self, session: Session, subscribed: str) -> None:
        sub = session.subs.pop(subscribed)
        self._take_out(session, sub.subscribed)
        self.own.remove(subscribed)
        row = self.store.write(session.client.name, session.epoch)
        if row is not None:
            row.subscriptions.pop(subscribed, None)

    def disconnect(self, session: Session) -> None:
        session.client.session = None
        self._offline(session)

    def _offline(self, session: Session) -> None:
        if session.online:
            session.online = False
            self._tell_online(session, -1)
        self._store_unsettled(session, session.epoch)
        session.sent.clear()

    def _tell_online(self, session: Session, by: int) -> None:
        for subscribed in session.subs:
            if subscribed.startswith("$share/"):
                self.own.online(subscribed, by)

    def _put(self, session: Session, subscribed: str) -> int:
        parsed = parse_subscription(subscribed)
        assert parsed is not None
        if parsed.group:
            self.members.setdefault(subscribed, {})[session] = None
            if session.online:
                self.own.online(subscribed, 1)
        else:
            self.local.add(parsed.filter, session, subscribed)
        return self.own.add(subscribed)

    def _take_out(self, session: Session, subscribed: str) -> None:
        parsed = parse_subscription(subscribed)
        assert parsed is not None
        if parsed.group:
            self.members[subscribed].pop(session, None)
            if session.online:
                self.own.online(subscribed, -1)
        else:
            self.local.remove(parsed.filter, session)

    def let_go(self, session: Session, now: int = 0) -> None:
        """Another node has it."""
        for subscribed in session.subs:
            self._take_out(session, subscribed)
            self.own.moved(subscribed, now)
        session.online = False
        session.subs = {}
        if self.sessions.get(session.client.name) is session:
            del self.sessions[session.client.name]
        if session.client.session is session:
            session.client.session = None  # 0x8E
        for at, (record, group, place) in session.unsettled.items():
            if group and place is not None:
                self.tell(now, self.handing.hand(place, at, record, group, (), now))
        session.unsettled = {}

    # A turn

    def turn(self, now: int) -> None:
        if not self.holds(now):
            self.running = False
            return
        if now - self._renewed >= RENEW_MS:
            self._renewed = now
            if not self.store.renew(self.epoch, now):
                self.running = False
                return
            self._held_until = now + LEASE_MS
        if self.random.random() < 0.3:
            moved, self.store.moved[self.epoch] = self.store.moved[self.epoch], []
            for client in moved:
                session = self.sessions.get(client)
                if session is not None and self.store.rows[client].epoch != session.epoch:
                    self.let_go(session, now)
        self._read_slot(now)
        self._join()
        self._answer(now)
        self._acknowledge()
        if self.random.random() < 0.4:
            self.store.put_routes(self.own.changes(now))
        self._settle_commands(now)
        self._commit()

    def holds(self, now: int) -> bool:
        return now < self._held_until

    def _read_slot(self, now: int) -> None:
        had = self.slots.had[self.epoch]
        stop = min(len(had), self.read + SLOT_A_TURN)
        for index in range(self.read, stop):
            self._take(had[index], At(0, index, 0), now)
        self.read = stop

    def _take(self, message: Message, place: At, now: int) -> None:
        if not isinstance(message, Routed):
            self._command(message.at, message.record, message.group, place, message.tried, now)
            return
        taken = self.marks.take(message)
        self._places()
        if taken.hole is not None:
            self.holes += 1
            for at, record in self.log.read(*taken.hole):
                self._deliver(at, record)
        for sent in taken.plain:
            self._deliver(sent.at, sent.record)
        for sent in taken.commands:
            for group in sent.groups:
                self._command(sent.at, sent.record, group, place, (), now)

    def _places(self) -> None:
        """It became known from where on routers have routes."""
        for joining in self.joinings:
            for place in joining.wait.places.values():
                joining.gap.live_from(place)
        for session, sub in self.pending:
            for shard, place in sub.places.items():
                if sub.late is not None and shard in sub.late:
                    self._read_late(session, sub, sub.late.pop(shard), place)

    def _read_late(self, session: Session, sub: Sub, start: At, stop: At) -> None:
        """The client was answered before routers had the filter: what came in between is read once more."""
        parsed = parse_subscription(sub.subscribed)
        assert parsed is not None
        own: Routes[int, int, None] = Routes()
        own.add(parsed.filter, 0, 0)
        for at, record in self.log.read(start, stop) if start < stop else ():
            if own.match(record.topic) and not self._is_live(session, at, record.topic):
                self._receive(session, at, record)

    def _is_live(self, session: Session, at: At, topic: str) -> bool:
        """Whether the record at that place comes to the session by live routing."""
        live = session.gap.is_live(session, at) if session.gap is not None else at >= session.floor.get(at.shard, at)
        return live and any(
            target is session and at.shard in session.subs[subscribed].places and at >= session.subs[subscribed].places[at.shard]
            for target, subscribed in self.local.match(topic)
        )

    def _deliver(self, at: At, record: Record) -> None:
        for session in {session: None for session, _ in self.local.match(record.topic)}:
            if self._is_live(session, at, record.topic):
                self._receive(session, at, record)

    def _receive(self, session: Session, at: At, record: Record, group: str = "", place: At | None = None) -> bool:
        if session.gap is not None:
            session.box[at] = record
        elif session.online:
            session.unsettled[at] = (record, group, place)
            self._send(session, at, record)
        else:
            row = self.store.write(session.client.name, session.epoch)
            if row is None:
                return False
            row.inbox[at] = record
        return True

    def _send(self, session: Session, at: At, record: Record) -> None:
        session.client.receive(session, at, record, owned=self.store.rows[session.client.name].owner == self.epoch)

    def _command(self, at: At, record: Record, group: str, place: At, tried: tuple[int, ...], now: int) -> None:
        if not self._give(at, record, group, place):
            self.tell(now, self.handing.hand(place, at, record, group, tried, now))

    def _give(self, at: At, record: Record, group: str, place: At) -> bool:
        up = [session for session in self.members.get(group, ()) if session.gap is None]
        if not up:
            return False
        member = choose(record.client, record.topic, [Member(session.client.name, int(session.online)) for session in up])
        session = next(session for session in up if session.client.name == member.client)
        return self._receive(session, at, record, group, place)

    def _join(self) -> None:
        for joining in list(self.joinings):
            gap = joining.gap
            for shard, (start, stop) in gap.ranges({}).items():
                begin = gap.reading(start)
                end = min(stop, At(shard, 0, begin.index + self.random.randrange(GAP_A_TURN)), self.log.ends()[shard])
                for at, record in self.log.read(begin, end):
                    self.gap_reads += 1
                    for session, _ in gap.owed(record.topic, at):
                        session.box[at] = record
                gap.passed(max(begin, end))
            if joining.wait.done and gap.is_closed({}):
                self.joinings.remove(joining)
                for session in joining.sessions:
                    self._joined(session)

    def _joined(self, session: Session) -> None:
        row = self.store.write(session.client.name, session.epoch)
        gap, session.gap = session.gap, None
        if gap is None or row is None or self.sessions.get(session.client.name) is not session:
            return
        row.inbox.update(session.box)
        row.resume, resume = None, row.resume or {}
        row.floor = {shard: max(at, resume.get(shard, at)) for shard, at in gap.boundaries.items()}
        session.floor, session.box = dict(row.floor), {}
        if session.online:
            self._drain(session)

    def _drain(self, session: Session) -> None:
        row = self.store.write(session.client.name, session.epoch)
        if row is None:
            return
        for at in sorted(row.inbox):
            session.sent.add(at)
            self._send(session, at, row.inbox[at])

    def _answer(self, now: int) -> None:
        left = []
        for session, sub in self.pending:
            if session.subs.get(sub.subscribed) is not sub:
                continue
            done = sub.wait is None or sub.wait.done
            if not sub.answered and (done or (now - sub.asked >= SUBACK_MS and not sub.subscribed.startswith("$share/"))):
                self._suback(session, sub, done)
            if not (done and sub.answered):
                left.append((session, sub))
        self.pending = left

    def _suback(self, session: Session, sub: Sub, done: bool) -> None:
        row = self.store.write(session.client.name, session.epoch)
        if row is None:
            return
        sub.answered = True
        since = dict(sub.places)
        ends = self.log.ends()
        if not done:
            self.early_subacks += 1
            sub.late = {shard: end for shard, end in ends.items() if shard not in sub.places}
            since |= sub.late
        row.subscriptions[sub.subscribed] = since
        session.client.owed.append(Interval(sub.subscribed, ends))

    def _acknowledge(self) -> None:
        for session in list(self.sessions.values()):
            if session.client.session is not session or not session.client.acks or self.random.random() < 0.2:
                continue
            acks, session.client.acks = session.client.acks, []
            row = self.store.write(session.client.name, session.epoch)
            for at in acks:
                session.unsettled.pop(at, None)
                if at in session.sent and row is not None:
                    row.inbox.pop(at, None)

    def _store_unsettled(self, session: Session, epoch: int) -> None:
        row = self.store.write(session.client.name, epoch)
        if row is not None:
            row.inbox.update({at: record for at, (record, _, _) in session.unsettled.items()})
            session.unsettled = {}

    # Commands

    def tell(self, now: int, messages: Iterable[Message]) -> None:
        for message in messages:
            self.slots.append(now, f"{self.epoch}g", message)

    def _settle_commands(self, now: int) -> None:
        for handing in (self.handing, *self.taking.values()):
            for command in handing.waiting():
                if self._give(command.at, command.record, command.group, command.place):
                    handing.settled(command)
        if self.slots.has(f"{self.epoch}g", self.slots.sent):
            alive = self.store.alive()
            for handing in (self.handing, *self.taking.values()):
                self.tell(now, handing.confirm(handing.outstanding(), alive, now))

    def _commit(self) -> None:
        """Where this node stands: nothing before it is owed to anybody here, or it is stored."""
        unsettled = [(at, place) for session in self.sessions.values() for at, (_, _, place) in session.unsettled.items()]
        marks = dict(self.marks.reached)
        for at, place in unsettled:
            if place is None:
                marks[at.shard] = min(marks[at.shard], at)
        late = [tuple({**marks, **sub.late}.values()) for _, sub in self.pending if sub.late]
        self.store.positions[self.epoch] = hold(marks, late)
        places = [place.offset for _, place in unsettled if place is not None]
        held = self.handing.held()
        self.store.slot_read[self.epoch] = min([self.read, *places, *((held.offset,) if held is not None else ())])

    def leave(self) -> None:
        for session in list(self.sessions.values()):
            if session.client.session is session:
                session.client.session = None
            self._offline(session)
        self._commit()
        self.store.put_routes(self.own.changes(0))
        self.store.until[self.epoch] = 0
        self.running = False
