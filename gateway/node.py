"""One running gateway: the parts that connections and sessions share. Built by app.py; holds, decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from gateway.auth.access import Access
from gateway.auth.failures import FailedLogins
from gateway.auth.login import Authenticator
from gateway.auth.registers import Registers
from gateway.clock import Clock, RecordIds
from gateway.cluster.roles import LivingRoles
from gateway.counters import Counters
from gateway.flush import Flusher
from gateway.guarding import Guarding
from gateway.here import Here
from gateway.persistence import Persistence
from gateway.protocol.packets import Disconnect
from gateway.protocol.properties import Properties
from gateway.redirecting import Redirecting
from gateway.refusals import Refusals
from gateway.registry import Connections, Registry, Turns
from gateway.wildcards import Wildcards
from schemas.identities import Principal
from schemas.limits import Limits
from schemas.positions import At
from schemas.reasons import ReasonCode
from schemas.records import Flag, Record
from schemas.sessions import Subscription
from schemas.settings import Settings
from schemas.topics import SharedFilter, parse_p2p, parse_subscription
from streams.fanout import Plan, Target, derive_plan
from streams.log import Log
from streams.routes import Routes
from streams.store import Store

if TYPE_CHECKING:
    from gateway.backlog import Backlog
    from gateway.broker_topics import BrokerTopics
    from gateway.cluster.arrivals import Arrivals
    from gateway.cluster.everywhere import Everywhere
    from gateway.cluster.sharing import Sharing
    from gateway.connecting import Connecting
    from gateway.connection import Connection
    from gateway.ending import Ending
    from gateway.presence import PresenceEvents
    from gateway.pressure import PressureValve
    from gateway.rights import Rights
    from gateway.session import Session
    from gateway.subscribing import Subscribing
    from gateway.token_watch import TokenWatch
    from gateway.trace import Trace

P2P = int(Flag.P2P)
Match = tuple[Target | tuple[Target, str], Subscription]


class Node:
    """What there is one of. ``tick`` is monotonic seconds, renewed a few times a second: good enough for keep-alives."""

    everywhere: Everywhere | None = None
    """Where there may be other nodes: what is asked of all of them."""
    sharing: Sharing | None = None
    """Where there may be other nodes: which of them gets what of shared subscriptions."""

    # Set by the application, since they know the node
    arrivals: Arrivals
    """Where there may be other nodes."""
    connecting: Connecting
    subscribing: Subscribing
    ending: Ending
    backlog: Backlog
    pressure: PressureValve
    presence: PresenceEvents
    broker_topics: BrokerTopics
    rights: Rights
    token_watch: TokenWatch
    trace: Trace

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        log: Log,
        store: Store,
        registers: Registers,
        clock: Clock,
        ids: RecordIds,
        epoch: int,
    ) -> None:
        self.settings = settings
        self.limits: Limits = settings.limits
        self.strict = settings.preset == "apsaramq"
        self.loop = loop
        self.log = log
        self.store = store
        self.registers = registers
        self.access: Access = registers.access()
        self.authenticator: Authenticator = registers.authenticator(settings)
        self.clock = clock
        self.ids = ids
        self.epoch = epoch
        self.owner = 0
        """The node epoch that sessions and positions belong to: ``epoch`` where there may be other nodes, 0 for a node alone."""
        self.monotonic = time.monotonic
        self.tick = time.monotonic()
        self.counters = Counters()
        self.refusals = Refusals(lambda: self.monotonic())
        self.failed_logins = FailedLogins(settings.limits, lambda: self.monotonic(), self.counters.refused)
        self.flusher = Flusher(loop)
        self.persistence = Persistence(store, loop, self.counters)
        self.registry = Registry()
        self.here = Here(self)
        self.guarding = Guarding(self)
        self.redirecting = Redirecting(self)
        self.roles = LivingRoles()
        self.connections = Connections(self)
        self.turns = Turns(loop)
        self.routes: Routes[Target | tuple[Target, str], Subscription, Plan] = Routes()
        self.wildcards = Wildcards(settings.limits.wildcards_per_parent)
        self.queued_bytes = 0
        self.routed: dict[int, At] = {}
        """By shard the position behind the last record that was routed."""
        self.weaknesses: tuple[str, ...] = ()
        """Why an acknowledged record could be lost in the log after all, where its durability is taken as configured."""
        self.retained_present = True
        self.mailboxes: dict[str, int] = {}
        """Mailboxes by client id: who has none has no stored P2P messages."""
        self.draining = False
        self.admitting = False
        """Whether listeners are open: inflow rules wait for that."""
        self.undelivered: Callable[[Record, str], None] = lambda record, reason: None
        """Is told of records that came by an inflow rule and won't be delivered."""

    def is_p2p(self, topic: str) -> bool:
        """Whether a topic names a device: `<parent>/p2p/<client id>` under a parent for which P2P is on."""
        p2p = self.settings.p2p
        if not p2p.enabled:
            return False
        parsed = parse_p2p(topic)
        return parsed is not None and (not p2p.parents or parsed.parent in p2p.parents)

    def derive_plan(self, topic: str, matches: Sequence[Match]) -> Plan:
        """What a topic's matches come to; the routes keep it per topic."""
        plain = [(target[0] if isinstance(target, tuple) else target, subscription) for target, subscription in matches]
        return derive_plan(topic, plain, self.may_read)

    def plan(self, topic: str) -> Plan:
        """The topic's plan, from the cache of the routes."""
        return self.routes.match_cached(topic, partial(self.derive_plan, topic))

    def may_read(self, principal: Principal, topic: str) -> bool:
        """Whether a plan may have the principal as a receiver."""
        tokens = principal.tokens
        return self.access.may(principal, "read" if tokens is None or tokens.has("read") else "keep", topic)

    def may_have(self, principal: Principal, record: Record) -> bool:
        """Whether a stored or queued record may be sent to the principal now."""
        return self.access.may(principal, "receive" if record.flags & P2P else "read", record.topic)

    def shown_topic(self, principal: Principal, record: Record) -> str:
        """The topic that a receiver sees: the one that a backend asked for, where the receiver may read it (design: rules)."""
        real = record.real_topic
        return real if real and self.may_read(principal, real) else record.topic

    def routes_add(self, parsed: SharedFilter, session: Session, subscription: Subscription) -> None:
        """Route a subscription. Shared ones are targets of their own: a session may have the same filter in several groups."""
        self.routes.add(parsed.filter, (session, parsed.group) if parsed.group else session, subscription)
        self.wildcards.add(parsed.filter, (session, parsed.group))
        if parsed.group and self.sharing is not None:
            self.sharing.joined(session, subscription.filter)

    def routes_remove(self, session: Session, subscribed: str, *, moved: bool = False) -> None:
        """``moved``: the session is another node's."""
        parsed = parse_subscription(subscribed)
        if parsed is not None:
            self.routes.remove(parsed.filter, (session, parsed.group) if parsed.group else session)
            self.wildcards.remove(parsed.filter, (session, parsed.group))
            if parsed.group and self.sharing is not None:
                self.sharing.parted(session, subscribed, moved=moved)

    def registry_remove(self, session: Session) -> None:
        """Forget a session and its routes; what was stored for it goes with it."""
        if session.id:
            self.counters.dropped["session_ended"] += session.stored_count
        for subscribed in session.subscriptions:
            self.routes_remove(session, subscribed)
        if self.registry.sessions.get(session.client) is session:
            del self.registry.sessions[session.client]

    def log_refused(self, connection: Connection, client: str, words: str) -> None:
        self.refusals.say("connect-refused", "client=%r address=%s reason=%s", client[:64], connection.peer.address, words)

    def busy(self) -> bool:
        """Whether the loop has work that a long catch-up should let pass."""
        return self.pressure.lag > self.limits.routing_lag

    @staticmethod
    def disconnect_packet(reason: ReasonCode, words: str, reference: str = "") -> Disconnect:
        """A DISCONNECT with a reason string, which never repeats what the peer sent, and the server to go to."""
        properties = Properties(reason_string=words or None, server_reference=reference or None) if words or reference else None
        return Disconnect(reason_code=reason, properties=properties)
