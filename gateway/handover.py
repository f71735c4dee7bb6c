"""What a session that is gone owed its client: messages of shared subscriptions go to another member, the rest is counted as dropped.

Knows routes and counters; what was left is said by gateway/keeping.py, and gateway/ending.py calls once the session is out of the routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway import keeping
from gateway.session import Session
from streams.fanout import Delivery, fan_out

if TYPE_CHECKING:
    from gateway.node import Node


def hand_over(node: Node, left: Iterable[tuple[Delivery, bool]]) -> None:
    """Deliveries and whether they were sent: QoS 1 goes to another member, QoS 2 that was sent to none, its client may have it [MQTT-4.8.2-5]."""
    for delivery, sent in left:
        handed_over = delivery.group and not (sent and delivery.qos == 2) and _pass_on(node, delivery)
        if not handed_over:
            node.counters.dropped["session_ended"] += 1


def _pass_on(node: Node, delivery: Delivery) -> bool:
    """Give the record to a member of the group that is left; False where there is none."""
    topic = delivery.record.topic
    plan = node.derive_plan(topic, [match for match in node.routes.match(topic) if match[1].filter == delivery.group])
    if not plan.groups:
        if node.sharing is not None:
            node.sharing.lost(delivery)
        return node.sharing is not None
    fan_out(plan, (delivery.record,), (delivery.at,), (delivery.record.id,) if delivery.traced else ())
    for member, _ in plan.groups[0][1]:
        # The position of the log has passed this record: what is kept must be stored by itself, now
        if isinstance(member, Session) and member.active:
            keeping.settle(member, node.routed)
    return True
