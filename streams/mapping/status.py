"""From presence events to messages of a backend: the JSON body that is documented, the event's type as RocketMQ's tag."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.connections import ConnectionSettings
from schemas.records import Record
from schemas.rules import ANY_GROUP, Rule
from streams.backend import Outgoing
from streams.mapping import properties as names
from streams.mapping.conditions import Verdict
from streams.mapping.outflow import Mapped, Poison
from streams.presence import EVENT_TYPES, event_json

SEPARATOR = "@@@"
"""Between group id and device id in a client id."""


def group_of(client: str) -> str:
    """The group id in a client id; empty where it has none."""
    group, separator, _ = client.partition(SEPARATOR)
    return group if separator else ""


def is_of(rule: Rule, client: str) -> bool:
    """Whether a client's events are the rule's."""
    return rule.group in (ANY_GROUP, group_of(client))


class StatusMapper:
    """As OutflowMapper, of the presence topic."""

    is_template = False

    def __init__(self, rule: Rule, connection: ConnectionSettings) -> None:
        self.always_in_lanes = False
        self._rule = rule
        self._tagged = connection.kind == "rocketmq"
        self.sources = frozenset((0,))

    def map_all(self, records: Sequence[Record], verdicts: Sequence[Verdict] | None = None) -> Mapped:
        mapped = Mapped([], [], [], 0, 0)
        filtered = 0
        for index, record in enumerate(records):
            if verdicts is not None:
                if verdicts[index].reason:
                    mapped.poison.append(Poison(index, verdicts[index].reason))
                    continue
                if verdicts[index].body is None:
                    filtered += 1
                    continue
            try:
                mapped.messages.append(self._message(record))
            except (ValueError, msgspec.ValidationError) as error:
                mapped.poison.append(Poison(index, f"not a presence event: {error}"))
            else:
                mapped.origins.append(index)
        return mapped._replace(filtered=filtered)

    def _message(self, record: Record) -> Outgoing:
        event = EVENT_TYPES[record.kind]
        pairs: list[tuple[str, str]] = []
        names.put_text(pairs, names.CLIENT, record.client)
        pairs.append(("eventType", event))
        return Outgoing(
            self._rule.backend_topic,
            event_json(record),
            tuple(pairs),
            record.id.hex().upper(),
            record.time,
            record.client or None,
            None,
            event if self._tagged else "",
        )

    def forget(self) -> None:
        """Nothing is kept."""
