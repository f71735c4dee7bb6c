"""The limits and times of the log on RocketMQ in one table; tests make them small. Neighbour: bridges/framed/options.py has the common ones."""

from __future__ import annotations

from bridges.framed.options import MIB, FramedOptions


class RocketmqLogOptions(FramedOptions, frozen=True, kw_only=True):
    """Bytes and seconds unless the name says otherwise. The first part describes the topics, the rest what this process does.

    ``retention_age`` is what is counted on: brokers keep all topics for one time, which is theirs to set. ``backoff`` doubles.
    """

    shared: bool = False
    """Other nodes write into the same topics at the same time."""
    packet: int = MIB
    """The largest record that is to fit; brokers that take less are refused."""

    deliver_within: float = 8.0
    """A frame that is not answered by then is sent again by a new connection. A broker itself gives up on a disk or a replica after 5."""
    longest_backoff: float = 3.0
    """A broker whose disk or replica is away has stored what it doesn't acknowledge: each attempt is one more copy."""
    answer_within: float = 15.0
    """For whatever is asked at start."""
    poll_for: float = 10.0
    """How long a broker may hold a request for records that are not there yet."""
    clocks_apart: float = 600.0
    """Brokers find by the time at which they stored a frame: a reader that starts by time looks so far back for records of a clock that is ahead."""
