"""The limits and times of the log on Kafka in one table; tests make them small. Neighbour: bridges/framed/options.py has the common ones."""

from __future__ import annotations

from bridges.framed.options import MIB, FramedOptions


class KafkaLogOptions(FramedOptions, frozen=True, kw_only=True):
    """Bytes and seconds unless the name says otherwise. The first part describes the topics, the rest what this process does."""

    replication: int = 3
    retention_bytes: int = 8 * 1024 * MIB
    """Of a topic, all shards together, one replica."""
    message_bytes: int = 4 * MIB
    """The largest frame that the topics have to take: a group, or one record that is larger than a group."""

    deliver_within: float = 12.0
    """A frame that is not answered by then is sent again by a new producer."""
    answer_within: float = 10.0
    """For whatever is asked at start."""
    fetch_wait: float = 0.5
    """How long a broker may hold a request for records that are not there yet."""
