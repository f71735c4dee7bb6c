"""CONNECT: who is it, whose session [MQTT-3.1.3-2], and the answer [MQTT-3.1.4-5]. One connect at a time per client id (registry.Turns).

What must be durable before CONNACK is: the claim of a session that outlives its connection, and the connect event.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING

import msgspec

from gateway import failpoints, resuming
from gateway.auth.client_certificates import Holder
from gateway.auth.login import LoginRefused, Peer
from gateway.auth.scram import METHOD as SCRAM
from gateway.auth.scram import ScramRefused, read_first
from gateway.auth.shelf import ShelfFull
from gateway.authenticating import Authenticating
from gateway.claiming import claim
from gateway.connection import Connection
from gateway.outbound import NO_LIMIT_PACKET
from gateway.protocol.encode import encode_packet, encode_within
from gateway.protocol.packets import MQTT_5_0, Connack, Connect
from gateway.protocol.properties import NONE, Properties, forwardable
from gateway.protocol.states import ConnectionState
from gateway.session import Session
from schemas.errors import LogError, StoreError
from schemas.identities import Principal
from schemas.presence import Will
from schemas.reasons import ReasonCode
from schemas.sessions import NEVER_EXPIRES, BoxEntry, SessionState
from schemas.topics import is_topic_name
from streams.store import Refused

if TYPE_CHECKING:
    from gateway.node import Node

ASSIGNED_PREFIX = "sw-"
CONNACKS_3 = (b"\x20\x02\x00\x00", b"\x20\x02\x01\x00")
"""The CONNACK of success in 3.1.1, without and with a session present."""
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def key_of(user_name: str | None) -> str:
    """What a login is counted by: the key of a user name with three fields, else all of it."""
    parts = (user_name or "").split("|")
    return parts[1] if len(parts) == 3 else parts[0]


class ConnectRefused(Exception):
    """Answer CONNECT with this code and close. ``words`` are for the log, ``reference`` is where else the client may go."""

    def __init__(self, code: ReasonCode, words: str, reference: str = "") -> None:
        super().__init__(words)
        self.code = code
        self.words = words
        self.reference = reference


class Connecting:
    """The connect flow."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()
        self.authenticating = Authenticating(node)

    def start(self, connection: Connection, packet: Connect) -> None:
        """Answer a CONNECT; what the client sends behind it waits."""
        self._spawn(self._connect(connection, packet))

    def _spawn(self, flow: Coroutine[None, None, None]) -> None:
        task = self._node.loop.create_task(flow)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refuse(self, connection: Connection, code: ReasonCode, reference: str = "") -> None:
        """CONNACK with an error, for those who can get one: 3.1.1 knows few codes, and some take no packet of that size [MQTT-3.1.2-24]."""
        connack = Connack(session_present=False, reason_code=code, properties=Properties(server_reference=reference or None))
        answer = encode_within(connack, connection.version, connection.send_packet_maximum)
        if answer is not None:
            connection.out.append(answer)  # it leaves with the close that follows

    async def _connect(self, connection: Connection, packet: Connect) -> None:
        self._negotiate(connection, packet)
        try:
            if (code := self._node.guarding.arrived(connection)) is not None:
                raise ConnectRefused(code, "connection rate")  # noqa: TRY301 - answered like every other refusal
            holder = self._holder(connection)
            method = (packet.properties or NONE).authentication_method
            authenticated = None if method is None else await self._authenticate(connection, packet, method)
            principal, client, will = self._check(connection, packet, authenticated, holder)
            if not await self._node.turns.take(client):
                raise ConnectRefused(ReasonCode.SERVER_BUSY, "clientId conflict")  # noqa: TRY301 - CONNACK has no 0x8E [MQTT-3.2.2-8]
            try:
                if holder is not None:
                    await self._admit(connection, holder)
                if connection.is_connecting():
                    await self._begin(connection, packet, principal, client, will)
            finally:
                self._node.turns.give(client)
        except ConnectRefused as refused:
            self._node.counters.refused["connect_" + refused.code.name.lower()] += 1
            self._node.log_refused(connection, packet.client_id, refused.words)
            self._node.trace.refused(packet.client_id, connection.peer.address, refused.code, refused.words)
            self.refuse(connection, refused.code, refused.reference)
            connection.shut()  # [MQTT-3.1.4-2] [MQTT-3.2.2-7]; what came behind CONNECT is dropped with it [MQTT-3.1.4-6]
        except (StoreError, LogError) as error:
            self._node.log_refused(connection, packet.client_id, str(error))
            self.refuse(connection, ReasonCode.SERVER_UNAVAILABLE)
            connection.shut()
        self.authenticating.final(connection)  # of a connect that came to nothing after all
        if connection.state == ConnectionState.CONNECTED:
            connection.resume()

    # Checks: nothing is changed here

    async def _authenticate(self, connection: Connection, packet: Connect, method: str) -> Principal:
        """Enhanced authentication. Its secrets are not sent, but its answers could be changed: it wants what every login wants of a peer."""
        node = self._node
        if method != SCRAM or not len(node.registers.identities):
            raise ConnectRefused(ReasonCode.BAD_AUTHENTICATION_METHOD, "no such authentication method")  # [MQTT-4.12.0-1] [MQTT-4.12.0-4]
        peer = connection.peer
        if not (peer.is_loopback or peer.is_secure or node.settings.allow_plaintext_login):
            raise ConnectRefused(ReasonCode.NOT_AUTHORIZED, "login in clear text from another machine")
        key = ""  # not the client id, which is whatever an attacker likes
        try:
            first = read_first((packet.properties or NONE).authentication_data or b"")
            key = key_of(first.user)
            if not node.failed_logins.refuse(peer.host, key):
                return await self.authenticating.exchange(connection, packet.client_id, first)
        except (ScramRefused, TimeoutError) as refused:
            node.failed_logins.add(peer.host, key, is_loopback=peer.is_loopback)
            raise ConnectRefused(ReasonCode.NOT_AUTHORIZED, str(refused) or "authentication took too long") from None
        raise ConnectRefused(ReasonCode.CONNECTION_RATE_EXCEEDED, "too many failed logins")

    def _holder(self, connection: Connection) -> Holder | None:
        """Whose certificate TLS was shown, if it says who that is; one that is refused ends the connect, whatever login comes with it."""
        certificate = connection.peer.certificate
        if certificate is None:
            return None
        found = self._node.authenticator.holder(certificate, self._node.clock.wall())
        if isinstance(found, LoginRefused):
            raise ConnectRefused(found.reason_code, found.reason)
        return found

    async def _admit(self, connection: Connection, holder: Holder) -> None:
        """A certificate registers itself when nothing else stands against the connect."""
        try:
            is_current = await self._node.registers.certificates.admit(holder, self._node.clock.wall())
        except ShelfFull:
            raise ConnectRefused(ReasonCode.QUOTA_EXCEEDED, "device certificate limit") from None
        if not is_current:
            raise ConnectRefused(ReasonCode.SERVER_BUSY, "certificate is being registered or refused")
        connection.certificate = holder.key

    def _check(
        self, connection: Connection, packet: Connect, authenticated: Principal | None, holder: Holder | None
    ) -> tuple[Principal, str, Will | None]:
        node = self._node
        if (elsewhere := node.redirecting.refusal(connection)) is not None:
            raise ConnectRefused(*elsewhere)
        if len(node.connections) > node.limits.connections:
            raise ConnectRefused(ReasonCode.QUOTA_EXCEEDED, "connection limit")
        client = packet.client_id
        if not client:
            if packet.version != MQTT_5_0 and not packet.clean_start:
                raise ConnectRefused(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "no client id")  # [MQTT-3.1.3-8] of 3.1.1
            client = ASSIGNED_PREFIX + secrets.token_hex(12)  # [MQTT-3.1.3-6] [MQTT-3.1.3-7]
        # 1 to 23 letters and digits pass whatever the limit [MQTT-3.1.3-5]
        if len(client.encode()) > node.limits.client_id_bytes or CONTROL_CHARACTERS.search(client):
            raise ConnectRefused(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "client id too long or with control characters")
        limited = connection.send_packet_maximum != NO_LIMIT_PACKET
        if limited and len(encode_packet(self._connack(connection, packet, client, present=True), packet.version)) > connection.send_packet_maximum:
            raise ConnectRefused(ReasonCode.PACKET_TOO_LARGE, "the client takes no CONNACK")  # [MQTT-3.1.2-24]
        info = connection.peer
        peer = Peer(info.address, is_loopback=info.is_loopback, is_secure=info.is_secure, holder=holder)
        principal = self._login(connection, packet, client, peer) if authenticated is None else authenticated
        self._check_admission(client, principal)
        existing = self._check_owner(client, principal)
        code = node.guarding.admit(connection, principal.name, None if existing is None else existing.connection)
        if code is not None:
            raise ConnectRefused(code, "connections of one address or principal")
        return principal, client, self._will(packet, principal)

    def _login(self, connection: Connection, packet: Connect, client: str, peer: Peer) -> Principal:
        node = self._node
        failed, host, key = node.failed_logins, connection.peer.host, key_of(packet.user_name)
        if failed.refuse(host, key):
            raise ConnectRefused(ReasonCode.CONNECTION_RATE_EXCEEDED, "too many failed logins")
        principal = node.authenticator.login(packet.user_name, packet.password, client, peer, node.clock.wall())
        if isinstance(principal, LoginRefused):
            failed.add(host, key, is_loopback=peer.is_loopback)
            raise ConnectRefused(principal.reason_code, principal.reason)
        return principal

    def _check_admission(self, client: str, principal: Principal) -> None:
        node = self._node
        if node.registers.identities.is_blocked(client):
            raise ConnectRefused(ReasonCode.BANNED, "client id is blocked")
        if not node.registers.resources.admits_client(principal):
            raise ConnectRefused(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "client id without an existing group")

    def _check_owner(self, client: str, principal: Principal) -> Session | None:
        """The client id's session, if there is one; a session stays with its principal."""
        existing = self._node.registry.get(client)
        if existing is not None and existing.principal.name != principal.name:
            raise ConnectRefused(ReasonCode.NOT_AUTHORIZED, "client id of another principal")
        return existing

    def _will(self, packet: Connect, principal: Principal) -> Will | None:
        """The will under the rules of a PUBLISH; it is checked again when it is published."""
        will = packet.will
        if will is None:
            return None
        node = self._node
        limits = node.limits
        if not is_topic_name(will.topic) or len(will.topic.encode()) > limits.topic_bytes or will.topic.count("/") >= limits.topic_levels:
            raise ConnectRefused(ReasonCode.TOPIC_NAME_INVALID, "will topic")
        if will.topic.startswith("$") or not node.access.may(principal, "publish", will.topic):
            raise ConnectRefused(ReasonCode.NOT_AUTHORIZED, "will topic not allowed")
        properties = will.properties or NONE
        expiry = -1 if properties.message_expiry_interval is None else properties.message_expiry_interval
        delay = properties.will_delay_interval or 0
        # [MQTT-3.1.2-14] [MQTT-3.1.2-15]; the user properties in their order [MQTT-3.1.3-10]
        return Will(will.topic, will.payload, will.qos, will.retain, delay, forwardable(properties), expiry)

    # The session

    def _expiry(self, packet: Connect) -> int:
        """The session expiry interval granted, seconds."""
        kept_in_3 = 0 if packet.clean_start else NEVER_EXPIRES
        asked = (packet.properties or NONE).session_expiry_interval or 0 if packet.version == MQTT_5_0 else kept_in_3
        return min(asked, self._node.limits.session_expiry)

    async def _begin(self, connection: Connection, packet: Connect, principal: Principal, client: str, will: Will | None) -> None:
        node = self._node
        existing = self._check_owner(client, principal)  # again: others had their turn meanwhile
        if existing is not None and existing in node.registry.resuming:
            await node.arrivals.settled(existing)
            existing = node.registry.get(client)
        if existing is not None and existing.connection is not None:
            if failpoints.ARMED:
                failpoints.reach("takeover")
            existing.connection.close(ReasonCode.SESSION_TAKEN_OVER, "clientId conflict")  # [MQTT-3.1.4-3]
            existing = node.registry.get(client)
        expiry = self._expiry(packet)
        state = None
        if expiry or existing is not None or node.owner:
            state = await self._claim(existing, client, principal, packet.clean_start, expiry)
            if node.owner and state.present and (existing is None or state.resume is not None):
                existing, state = await node.arrivals.connecting(state, principal)
        session = self._session(existing, state, client, principal)
        session.expiry = expiry
        node.ending.wills.reconnected(client, resumed=session is existing)
        connection.principal = principal
        connection.will = will  # [MQTT-3.1.2-7]
        connection.channel = node.ids.next(node.clock.wall()).hex()
        try:
            await node.presence.connected(connection, session, expiry)
        except LogError:
            connection.will = None
            self._lost_meanwhile(connection, session, state)
            raise
        if node.owner and node.registry.get(client) is not session:  # another node has it by a later connect
            connection.will = None
            self._lost_meanwhile(connection, session, None)
            raise ConnectRefused(ReasonCode.SERVER_BUSY, "clientId conflict")
        if not connection.is_connecting():
            self._lost_meanwhile(connection, session, state)
            return
        connection.session = session
        session.attach(connection, state)
        if principal.tokens is not None or principal.claims:
            node.rights.narrowed(session)
        in_flight = state.in_flight if state is not None else ()
        if session.id:
            session.backlog = node.backlog.diverts
            if state is not None and state.queued and in_flight:
                in_flight = await node.backlog.put_back(session, in_flight)
            await node.persistence.barrier()
        if connection.is_connecting() and not node.rights.stands(connection):
            self.refuse(connection, ReasonCode.NOT_AUTHORIZED)  # a right was taken since it was looked at
            connection.shut()
        if not connection.is_connecting():
            node.ending.end(connection, "Socket IOException")
            return
        if will is not None and failpoints.ARMED:
            failpoints.reach("will-armed")
        self._answer(connection, packet, client, present=session is existing)
        self.resume(session, in_flight)

    def resume(self, session: Session, in_flight: tuple[BoxEntry, ...]) -> None:
        """What was in flight goes out again, then what is stored; in its own time where the client takes fewer at once."""
        left = resuming.resume(session, in_flight)
        session.refresh()
        self._node.backlog.begin(session)
        if left and session.connection is not None:
            self._spawn(resuming.finish(session, session.connection, left))

    async def _claim(self, existing: Session | None, client: str, principal: Principal, clean_start: bool, expiry: int) -> SessionState:
        state = await claim(self._node, existing, client, principal, clean_start=clean_start, expiry=expiry)
        if isinstance(state, Refused):
            code = ReasonCode.NOT_AUTHORIZED if state.principal else ReasonCode.QUOTA_EXCEEDED
            raise ConnectRefused(code, state.reason)
        return state

    def _session(self, existing: Session | None, state: SessionState | None, client: str, principal: Principal) -> Session:
        """The session that goes on [MQTT-3.1.2-5], or a new one in its place [MQTT-3.1.2-4] [MQTT-3.1.2-6]."""
        if existing is not None and state is not None and state.present:
            existing.principal = principal
            return existing
        if existing is not None:
            self._node.registry_remove(existing)
        session = Session(self._node, client, principal)
        if state is not None:
            session.adopt(state)
        self._node.registry.sessions[client] = session
        return session

    def _lost_meanwhile(self, connection: Connection, session: Session, state: SessionState | None) -> None:
        """The client went before its CONNACK: the session is as after a connection that ended."""
        connection.session = session
        session.attach(connection, state)
        self._node.ending.end(connection, "Socket IOException")

    def _negotiate(self, connection: Connection, packet: Connect) -> None:
        properties = packet.properties or NONE
        limits = self._node.limits
        # The quota of this connection [MQTT-4.9.0-1]
        connection.send_maximum = min(properties.receive_maximum or limits.window, 65535)
        connection.send_packet_maximum = properties.maximum_packet_size or NO_LIMIT_PACKET
        connection.send_alias_maximum = min(properties.topic_alias_maximum or 0, limits.topic_alias_maximum)
        connection.problem_information = properties.request_problem_information != 0
        connection.keep_alive = packet.keep_alive  # [MQTT-3.2.2-22]
        if packet.version == MQTT_5_0 and limits.keep_alive and (packet.keep_alive == 0 or packet.keep_alive > limits.keep_alive):
            connection.keep_alive = limits.keep_alive  # [MQTT-3.2.2-21]

    def _connack(self, connection: Connection, packet: Connect, client: str, *, present: bool) -> Connack:
        """The answer of success to a CONNECT of 5.0: no method [MQTT-4.12.0-6], and never response information [MQTT-3.1.2-28]."""
        limits, expiry = self._node.limits, self._expiry(packet)
        asked = (packet.properties or NONE).session_expiry_interval or 0
        properties = Properties(
            receive_maximum=limits.receive_maximum,
            maximum_packet_size=limits.packet,
            topic_alias_maximum=limits.topic_alias_maximum,
            assigned_client_identifier=None if packet.client_id else client,  # [MQTT-3.2.2-16]
            server_keep_alive=None if connection.keep_alive == packet.keep_alive else connection.keep_alive,
            session_expiry_interval=None if asked == expiry else expiry,
        )
        return Connack(session_present=present, reason_code=ReasonCode.SUCCESS, properties=properties)

    def _answer(self, connection: Connection, packet: Connect, client: str, *, present: bool) -> None:
        """CONNACK, once [MQTT-3.2.0-2] and before all else: until now nothing is sent [MQTT-3.2.0-1]. [MQTT-3.2.2-2] [MQTT-3.2.2-3]"""
        node = self._node
        if packet.version != MQTT_5_0:
            connection.send(CONNACKS_3[present])
        else:
            connack = self._connack(connection, packet, client, present=present)
            final = self.authenticating.final(connection)
            if final is not None:
                properties = msgspec.structs.replace(connack.properties or NONE, authentication_method=SCRAM, authentication_data=final)
                connack = msgspec.structs.replace(connack, properties=properties)  # [MQTT-4.12.0-5]
            connection.send_packet(connack)
        connection.state = ConnectionState.CONNECTED
        connection.ready = True
        node.counters.connects += 1
        node.connections.connected(connection)
        if connection.principal.tokens is not None or connection.principal.expires:
            node.token_watch.began(connection)
