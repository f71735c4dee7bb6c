"""SUBSCRIBE and UNSUBSCRIBE: grant, make durable, answer, then retained messages.

Until SUBACK and the retained messages are out, live deliveries of the session wait (``Session.hold``), so that no older
retained message overtakes a newer live one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from gateway.connection import Connection
from gateway.protocol.packets import MQTT_5_0, Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from schemas.errors import StoreError
from schemas.positions import At
from schemas.reasons import ReasonCode
from schemas.sessions import DropSubscription, PutSubscription, RetainedMessage, Subscription
from schemas.topics import parse_subscription
from streams.fanout import Delivery
from streams.retained import wants_retained

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.session import Session

PAGE = 200
"""Retained messages read at a time."""
AGAIN = 0.2
"""Seconds after which a store that failed is asked again."""
WAIT_FOR_ROOM = 0.02
RETAINED_SHARD = -1
"""Retained deliveries have positions of their own, before those of the log's shards."""


class Subscribing:
    """The subscribe flow."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed: dict[asyncio.Task[None] | None, set[str]] = {}
        """By subscribe flow that reads retained messages: topics whose message was routed since, so that it comes live."""

    def subscribe(self, connection: Connection, packet: Subscribe) -> None:
        """Grant filter by filter [MQTT-3.8.4-5] and answer in their order [MQTT-3.9.3-1], once what must be durable is [MQTT-3.8.4-1]."""
        session = connection.session
        assert session is not None  # noqa: S101 - connected
        codes: list[ReasonCode] = []
        wanted: list[Subscription] = []
        identifiers = packet.properties.subscription_identifier if packet.properties is not None else ()
        for request in packet.requests:
            code, subscription, is_new = self._grant(connection, session, request, identifiers[0] if identifiers else 0)
            codes.append(code)  # one a request [MQTT-3.8.4-6]
            if subscription is not None and wants_retained(subscription, is_new=is_new):
                wanted.append(subscription)
        if self._node.strict and any(code == ReasonCode.NOT_AUTHORIZED for code in codes):
            self._node.token_watch.refused(connection, "subscribe")
            connection.close(ReasonCode.NOT_AUTHORIZED, "resource auth failed")
            return
        shown = tuple(self._shown(connection, code) for code in codes)
        suback = Suback(packet_id=packet.packet_id, reason_codes=shown)  # [MQTT-2.2.1-6] [MQTT-3.8.4-2]
        if not self._node.retained_present:
            wanted = [subscription for subscription in wanted if subscription.filter.startswith("$SYS/")]
        # Where there are many nodes, others choose who gets what of a shared subscription: they know it when this is answered
        shared = self._node.sharing is not None and any(request.filter.startswith("$share/") for request in packet.requests)
        if not wanted and not session.id and not shared:
            connection.send_packet(suback)
            return
        session.hold += 1
        session.fast = False
        changed: set[str] = set()
        task = self._start(self._finish(connection, session, suback, wanted, changed, shared=shared))
        if wanted:
            self._changed[task] = changed

    def _shown(self, connection: Connection, code: ReasonCode) -> ReasonCode:
        if code == ReasonCode.NOT_AUTHORIZED and connection.version == MQTT_5_0:
            return ReasonCode(self._node.settings.compatibility.not_authorized_code)
        return code

    def _grant(
        self, connection: Connection, session: Session, request: SubscriptionRequest, identifier: int
    ) -> tuple[ReasonCode, Subscription | None, bool]:
        """The reason code, the subscription in force from now on, and whether the session had none on that filter."""
        node, limits = self._node, self._node.limits
        parsed = parse_subscription(request.filter)
        if parsed is None or len(request.filter.encode()) > limits.topic_bytes or request.filter.count("/") >= limits.topic_levels:
            return self._refuse(ReasonCode.TOPIC_FILTER_INVALID)
        if not node.access.may(connection.principal, "subscribe", request.filter):
            node.refusals.denied("subscribe-denied", session.client, connection.principal, request.filter)
            return self._refuse(ReasonCode.NOT_AUTHORIZED)
        before = session.subscriptions.get(request.filter)
        is_new = before is None
        if is_new and len(session.subscriptions) >= limits.subscriptions_per_client:
            return self._refuse(ReasonCode.QUOTA_EXCEEDED)
        if is_new and not node.wildcards.admits(parsed.filter):
            node.counters.refused["wildcards_per_parent"] += 1
            return self._refuse(ReasonCode.QUOTA_EXCEEDED)
        subscription = Subscription(
            request.filter,
            request.qos,
            request.no_local,
            request.retain_as_published,
            request.retain_handling,
            identifier,
            # One that is replaced goes on [MQTT-3.8.4-4]: what it brought and nobody settled yet still matches after a crash
            tuple(node.routed.values()) if before is None else before.since,
        )
        session.subscriptions[request.filter] = subscription
        node.routes_add(parsed, session, subscription)
        if session.id:
            node.persistence.add(PutSubscription(session=session.id, epoch=session.epoch, subscription=subscription))
        return ReasonCode(request.qos), subscription, is_new  # the QoS granted; a refusal says why [MQTT-3.8.4-7]

    def _refuse(self, code: ReasonCode) -> tuple[ReasonCode, Subscription | None, bool]:
        self._node.counters.refused["subscribe_" + code.name.lower()] += 1
        return code, None, False

    def unsubscribe(self, connection: Connection, packet: Unsubscribe) -> None:
        """Stop adding deliveries [MQTT-3.10.4-2]; those in flight are completed [MQTT-3.10.4-3]. One answer to all filters [MQTT-3.10.4-6]."""
        session = connection.session
        assert session is not None  # noqa: S101 - connected
        codes = []
        for topic_filter in packet.filters:
            subscription = session.subscriptions.pop(topic_filter, None)  # the same letters, whatever they match [MQTT-3.10.4-1]
            codes.append(ReasonCode.SUCCESS if subscription else ReasonCode.NO_SUBSCRIPTION_EXISTED)
            if subscription is not None:
                self._node.routes_remove(session, topic_filter)
                if session.id:
                    self._node.persistence.add(DropSubscription(session=session.id, epoch=session.epoch, filter=topic_filter))
        # In the order of the filters [MQTT-3.11.3-1], under the packet id [MQTT-3.10.4-5], whatever was there [MQTT-3.10.4-4]
        unsuback = Unsuback(packet_id=packet.packet_id, reason_codes=tuple(codes))
        if session.id:
            self._start(self._unsuback(connection, unsuback))
        else:
            connection.send_packet(unsuback)

    async def _unsuback(self, connection: Connection, unsuback: Unsuback) -> None:
        await self._node.persistence.barrier()
        if connection.ready:
            connection.send_packet(unsuback)

    def _start(self, flow: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._node.loop.create_task(flow)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def retained_changed(self, topic: str) -> None:
        """A retained message was routed: who subscribed before gets it live, and not once more as retained."""
        for changed in self._changed.values():
            changed.add(topic)

    async def _finish(
        self, connection: Connection, session: Session, suback: Suback, wanted: list[Subscription], changed: set[str], *, shared: bool
    ) -> None:
        """SUBACK once the subscriptions are durable, then what is retained."""
        try:
            await self._node.persistence.barrier()
            if shared and self._node.sharing is not None:
                await self._node.sharing.told()
            if not connection.ready:
                return
            connection.send_packet(suback)
            for subscription in wanted:
                for delivery in self._node.broker_topics.current(subscription.filter):
                    session.send(delivery)
                await self._send_retained(connection, session, subscription, changed)
        finally:
            self._changed.pop(asyncio.current_task(), None)
            if session.connection is connection:
                session.hold -= 1
                session.refresh()
                session.pump()

    async def _send_retained(self, connection: Connection, session: Session, subscription: Subscription, changed: set[str]) -> None:
        """Page by page, as the window allows [MQTT-3.3.1-9]; retain is set whatever retain-as-published says."""
        node = self._node
        after = ""
        while connection.ready:
            try:
                page = await node.store.retained(subscription.filter, after, PAGE)
            except StoreError:
                await asyncio.sleep(AGAIN)
                continue
            for message in page:
                while connection.ready and not session.has_room():  # noqa: ASYNC110 - room comes with acknowledgements, often
                    await asyncio.sleep(WAIT_FOR_ROOM)
                if not connection.ready or subscription.filter not in session.subscriptions:
                    return
                if message.topic not in changed:
                    self._send_one(connection, session, subscription, message)
            if len(page) < PAGE:
                return
            after = page[-1].topic

    def _send_one(self, connection: Connection, session: Session, subscription: Subscription, message: RetainedMessage) -> None:
        node = self._node
        record = message.record
        if not node.may_read(connection.principal, record.topic) or (subscription.no_local and record.client == session.client):
            return
        node.ids.counter += 1
        at = At(RETAINED_SHARD, node.epoch << 40 | node.ids.counter, 0)
        identifiers = (subscription.identifier,) if subscription.identifier else ()
        delivery = Delivery(record, at, min(record.qos, subscription.qos), retain=True, identifiers=identifiers)
        delivery.traced = session.node.trace.mark(record)
        session.send(delivery)
