"""How frames of the log come to their queues: a frame is a message, and SEND_OK the one answer that ends it.

Any other answer, and none, leaves open whether the frame is in the queue: it is sent again, the same bytes to the same queue, until it is
acknowledged. A broker that is away is waited for; no frame goes elsewhere. ``bridges/framed/lanes.py`` keeps one frame a queue on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from bridges.framed.lanes import Group, always, permitted
from bridges.rocketmq.client import Client
from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.errors import Refused, RemotingError, Unreachable
from bridges.rocketmq.frames import Command
from bridges.rocketmq.log_options import RocketmqLogOptions
from bridges.rocketmq.routes import Queue
from bridges.rocketmq.target import NO_DEFAULT_TOPIC, ROUTE_IS_WRONG, WORDS
from bridges.rocketmq.terms import Terms
from schemas.errors import BackendError

_log = logging.getLogger(__name__)

TOO_LARGE: Final = -1


class Sender:
    """For all lanes: see ``framed.lanes.Medium``. ``queues``: by topic the queue of each shard."""

    title = "RocketMQ"

    def __init__(
        self,
        client: Client,
        terms: Terms,
        group: str,
        queues: Mapping[str, tuple[Queue, ...]],
        options: RocketmqLogOptions,
        may_write: Callable[[], bool] = always,
    ) -> None:
        self._client = client
        self._may_write = may_write
        self._terms = terms
        self._group = group
        self._queues = queues
        self._options = options
        self._troubles: dict[tuple[str, int], str] = {}
        self.repeats = 0
        """Frames that were sent again."""

    async def deliver(self, group: Group, name: str, shard: int, body: bytes) -> int:
        """See ``framed.lanes.Medium``."""
        queue = self._queues[name][shard]
        # An empty frame is a mark
        born = max((record.time for record in group.records), default=0)
        pause = self._options.backoff
        while True:
            try:
                return await self._send(group, name, queue, born, body)
            except Refused as error:
                # It is there and may have stored the frame: see ``longest_backoff``
                pause = min(pause * 2, self._options.longest_backoff)
                self._note(name, shard, error)
            except BackendError as error:
                pause = self._options.backoff
                self._note(name, shard, error)
            except Exception as error:  # noqa: BLE001 - whatever it is, a lane that dies is no way on
                self._note(name, shard, error)
            await asyncio.sleep(pause)
            self.repeats += group.sent

    async def _send(self, group: Group, name: str, queue: Queue, born: int, body: bytes) -> int:
        address = await address_of(self._client, name, queue)
        await self._terms.of(address)
        await self._client.peers.connection(address)
        await permitted(self._may_write)
        group.sent = True
        fields = {
            "a": self._group,
            "b": name,
            "c": NO_DEFAULT_TOPIC,
            "d": "0",
            "e": str(queue.number),
            "f": "0",
            "g": str(born),
            "h": "0",
            "i": "",
            "j": "0",
            "k": "false",
        }
        answer = await self._client.ask(address, RequestCode.SEND_MESSAGE_V2, fields, body, within=self._options.deliver_within)
        if answer.code == ResponseCode.SUCCESS:
            return _offset(address, answer)
        if answer.code == ResponseCode.MESSAGE_ILLEGAL or (answer.code == ResponseCode.SYSTEM_ERROR and "size exceeded" in answer.remark):
            return TOO_LARGE
        if answer.code in ROUTE_IS_WRONG:
            self._client.doubt(name)
        raise Refused(address, answer.code, answer.remark or WORDS.get(answer.code, ""))

    def _note(self, name: str, shard: int, error: Exception) -> None:
        place = (name, shard)
        if place not in self._troubles:
            _log.error("log.rocketmq_unreachable topic=%s shard=%d queue=%s error=%s", name, shard, self._queues[name][shard].name, error)
        self._troubles[place] = str(error) or type(error).__name__

    def trouble(self, name: str, shard: int) -> str:
        """See ``framed.lanes.Medium``."""
        return self._troubles.get((name, shard), "")

    def recovered(self, name: str, shard: int) -> bool:
        """See ``framed.lanes.Medium``."""
        return self._troubles.pop((name, shard), "") != ""

    def larger(self, name: str) -> str:
        """See ``framed.lanes.Medium``."""
        return f"maxMessageSize of the brokers of topic {name}"


async def address_of(client: Client, name: str, queue: Queue) -> str:
    """Where the queue's master is just now. Unreachable while name servers know of none."""
    route = await client.route(name)
    address = None if route is None else route.masters.get(queue.broker)
    if address is None:
        client.doubt(name)
        raise Unreachable(f"broker {queue.broker} of topic {name} is away")
    return address


def _offset(address: str, answer: Command) -> int:
    try:
        return int(answer.fields["queueOffset"])
    except (KeyError, ValueError) as error:
        raise RemotingError(f"{address} took a message and does not say where") from error
