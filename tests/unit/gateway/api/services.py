"""A running gateway as the API sees it, in memory."""

from __future__ import annotations

from collections import Counter

from gateway.api.services import ClosedConnections, NodeInfo, OnlineGroups, SessionInfo
from gateway.auth.access import Access
from gateway.auth.bearers import Bearers
from gateway.auth.client_certificates import ClientCertificates
from gateway.auth.failures import FailedLogins
from gateway.auth.login import Authenticator
from gateway.auth.policies import Policies
from gateway.auth.resources import Resources
from schemas.errors import LogError
from schemas.limits import Limits
from schemas.presence import ClientStatus
from schemas.sessions import Subscription
from schemas.traces import TracePage
from streams.memory.store import MemoryStore


class FakeServices:
    """Records what was asked of it; ``reasons`` is its readiness, ``is_failing`` makes publishing fail."""

    def __init__(self, keyring, rules=(), limits=None, allow_plaintext_login=False):
        self.keyring = keyring
        self.authenticator = Authenticator(keyring, anonymous=False, allow_plaintext_login=allow_plaintext_login)
        store = MemoryStore()
        self.resources = Resources(store, mandatory=False, max_groups=3, max_topics=3)
        self.policies = Policies(store, rules)
        self.certificates = ClientCertificates(store, "registration-code")
        self.access = Access(keyring, policies=self.policies)
        self.bearers = Bearers(store)
        self.access.knows("bearer", self.bearers.is_known, lambda: self.bearers.version)
        self.limits = limits or Limits()
        self.now = 1000.0
        self.refused = Counter()
        self.failed_logins = FailedLogins(self.limits, lambda: self.now, self.refused)
        self.reasons = []
        self.doubts = []
        self.missing = []
        self.has_api = True
        self.published = []
        self.closed = []
        self.silent = []
        self.unanswered = None
        self.is_failing = False
        self.asked = []
        self.trace_fails = None
        self.traced = TracePage(0, [], [])
        self.mqtt = "127.0.0.1:1883"

    def node(self):
        return NodeInfo(
            node="node-1",
            instance_id=self.keyring.instance_id,
            version="0",
            preset="standard",
            durability="fsync",
            anonymous=False,
            started=5,
            listeners={"mqtt": [self.mqtt]},
        )

    def readiness(self):
        return self.reasons

    def weaknesses(self):
        return self.doubts

    def missing_roles(self):
        return self.missing

    def metrics(self):
        return b"# HELP x y\n"

    async def statuses(self, clients):
        known = {
            "on/line": ClientStatus("on/line", True, "c" * 32, "127.0.0.1:9", 1700000000000),
            "off": ClientStatus("off", False, "c" * 32, "127.0.0.1:9", 7),
        }
        return {client: known[client] for client in clients if client in known}

    async def group_statuses(self, prefix, after, limit):
        known = [ClientStatus(f"{prefix}{number}", number == 1, "c" * 32, "127.0.0.1:9", number) for number in range(5)]
        return [status for status in known if status.client > after][:limit]

    async def online(self, group=""):
        return OnlineGroups({"GID_bcd": 2, "GID_abc": 1}, self.silent)

    async def trace(self, query):
        self.asked.append(query)
        if self.trace_fails is not None:
            raise self.trace_fails
        return self.traced

    async def session(self, client_id):
        if self.unanswered is not None:
            raise self.unanswered
        if client_id != "on/line":
            return None
        return SessionInfo(
            client_id=client_id,
            principal="p",
            connected=True,
            session_expiry=60,
            queued=1,
            in_flight=2,
            subscriptions=(Subscription("a/#", 1, identifier=3),),
        )

    async def close_connection(self, client_id):
        if self.unanswered is not None:
            raise self.unanswered
        self.closed.append(client_id)
        return client_id == "on/line"

    async def close_connections_of(self, principal):
        self.closed.append(principal)
        return ClosedConnections(3, self.silent)

    async def publish(self, topic, payload, qos, retain, properties, principal):
        if self.is_failing:
            raise LogError("/secret/path: disk full")
        self.published.append((topic, payload, qos, retain, properties, principal))
        return bytes(range(16))
