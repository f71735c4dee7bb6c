"""What the API needs of a running gateway. app.py fulfils it; tests have their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from gateway.auth.access import Access
from gateway.auth.bearers import Bearers
from gateway.auth.client_certificates import ClientCertificates
from gateway.auth.failures import FailedLogins
from gateway.auth.keys import KeyRing
from gateway.auth.login import Authenticator
from gateway.auth.policies import Policies
from gateway.auth.resources import Resources
from gateway.protocol.properties import Properties
from gateway.rules.management import RuleManagement
from schemas.identities import Principal
from schemas.limits import Limits
from schemas.presence import ClientStatus
from schemas.sessions import Subscription
from schemas.traces import TracePage, TraceQuery


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``listeners``: by name (mqtt, mqtts, ws, wss, http) the addresses that it listens on. ``started`` in ms of the wall clock."""

    node: str
    instance_id: str
    version: str
    preset: str
    durability: str
    anonymous: bool
    started: int
    listeners: Mapping[str, Sequence[str]]


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A client's session. ``queued``: deliveries that wait for it, in memory and stored; ``in_flight``: sent, unacknowledged.

    ``node``: of many nodes, the one that has it.
    """

    client_id: str
    principal: str
    connected: bool
    session_expiry: int
    queued: int
    in_flight: int
    subscriptions: Sequence[Subscription]
    node: str = ""


class OnlineGroups(msgspec.Struct, frozen=True):
    """By group id, how many of its clients are online. ``silent``: nodes that did not answer, whose clients are not counted."""

    counts: Mapping[str, int]
    silent: Sequence[str] = ()


class ClosedConnections(msgspec.Struct, frozen=True):
    """``silent``: nodes that did not answer, and close theirs when they hear of it."""

    count: int
    silent: Sequence[str] = ()


class ApiServices(Protocol):
    """A running gateway, as HTTP sees it; where there are many nodes, all of them. What can't be said for all of them now is ``Unanswered``."""

    keyring: KeyRing
    authenticator: Authenticator
    failed_logins: FailedLogins
    access: Access
    limits: Limits
    resources: Resources
    policies: Policies
    certificates: ClientCertificates
    bearers: Bearers
    rules: RuleManagement
    has_api: bool
    """Whether this node answers more than metrics and health: of many nodes some may leave the rest to others."""

    def node(self) -> NodeInfo: ...

    def readiness(self) -> Sequence[str]:
        """Why the gateway should get no clients now; empty when it is ready."""

    def weaknesses(self) -> Sequence[str]:
        """Why an acknowledged record could be lost after all, where the log's durability is taken as configured."""

    def missing_roles(self) -> Sequence[str]:
        """Which roles no living node has, in words."""

    def metrics(self) -> bytes:
        """The page of metrics, in Prometheus' text format."""

    async def statuses(self, clients: Sequence[str]) -> Mapping[str, ClientStatus]:
        """The status of each; one that was never seen is left out."""

    async def group_statuses(self, prefix: str, after: str, limit: int) -> Sequence[ClientStatus]:
        """Of the clients that were ever seen whose ids begin with ``prefix``, by client id, behind ``after``."""

    async def online(self, group: str = "") -> OnlineGroups:
        """Of one group or of all that have anyone online; as of half a second ago at most."""

    async def trace(self, query: TraceQuery) -> TracePage:
        """What happened up to now. TraceOff, TraceBusy, TraceTooDeep."""

    async def session(self, client_id: str) -> SessionInfo | None:
        """A client's session, connected or not; None where there is none."""

    async def close_connection(self, client_id: str) -> bool:
        """Close a client's connection as an administrator does; False where there is none."""

    async def close_connections_of(self, principal: str) -> ClosedConnections:
        """Close the connections of a revoked key; how many they were."""

    async def publish(self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties, principal: Principal) -> bytes:
        """Publish and wait until it is durable; the message id. LogError where it can't be made durable."""
