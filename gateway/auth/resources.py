"""Group ids and parent topics that were created, and what the preset `apsaramq` asks of them: that they exist.

In the preset `standard` they are names alone: whoever may publish needs no topic created first. Grammar is in schemas/resources.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.auth.shelf import DocumentStore, Shelf
from schemas.errors import SluicewayError
from schemas.identities import Principal
from schemas.reasons import ReasonCode
from schemas.resources import Group, ParentTopic, group_id_problem, parent_topic_problem, split_client_id

CLIENT_ID_FORM_FREE: Final = ("user:", "client:", "cert:", "jwt:")
"""Principals whose client ids may have any form, as with the product's custom authentication."""


class ResourceRefused(SluicewayError):
    """A group or topic that can't be created or changed; ``field`` is to blame. ``exists``: because there is one of that name."""

    reason_code = ReasonCode.NOT_AUTHORIZED

    def __init__(self, field: str, message: str, *, exists: bool = False) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.exists = exists


class Resources:
    """``mandatory``: the preset `apsaramq`."""

    def __init__(self, store: DocumentStore, *, mandatory: bool, max_groups: int, max_topics: int) -> None:
        self.mandatory = mandatory
        self._groups: Shelf[Group] = Shelf(store, "group", Group, max_groups)
        self._topics: Shelf[ParentTopic] = Shelf(store, "topic", ParentTopic, max_topics)
        self._folded: dict[str, str] = {}
        """Topic names by their lower-case form: they are unique without regard to case."""

    async def load(self) -> None:
        await self._groups.load()
        await self._topics.load()
        self._folded = {name.lower(): name for name in self._topics.items()}

    @property
    def version(self) -> int:
        return self._groups.version + self._topics.version

    # What the preset asks

    def admits_topic(self, subject: str) -> bool:
        """Whether a topic or filter lies under a parent topic that exists, or in the gateway's own `$SYS`. A wildcard is no parent."""
        parent = subject.partition("/")[0]
        return not self.mandatory or parent in self._topics or parent == "$SYS"

    def admits_client(self, principal: Principal) -> bool:
        """Whether the client id is `<group id>@@@<device id>` with a group that exists."""
        if not self.mandatory or principal.role == "administrator" or principal.name.startswith(CLIENT_ID_FORM_FREE):
            return True
        parts = split_client_id(principal.client)
        return parts is not None and parts.group in self._groups

    # Groups

    def group(self, group_id: str) -> Group | None:
        return self._groups.get(group_id)

    def groups(self) -> Iterable[Group]:
        return self._groups.items().values()

    async def create_group(self, group_id: str, by: str, now: int) -> Group:
        if problem := group_id_problem(group_id):
            raise ResourceRefused("GroupId", problem)
        group = Group(group_id, now, now, by)
        if not await self._groups.add(group_id, group):
            raise ResourceRefused("GroupId", "exists already", exists=True)
        return group

    async def delete_group(self, group_id: str) -> bool:
        """False where there is none. Its clients stay connected; they can't connect again where groups are mandatory."""
        return await self._groups.drop(group_id)

    # Parent topics

    def topic(self, name: str) -> ParentTopic | None:
        return self._topics.get(name)

    def topics(self) -> Iterable[ParentTopic]:
        return self._topics.items().values()

    async def create_topic(self, name: str, remark: str, by: str, now: int) -> ParentTopic:
        if problem := parent_topic_problem(name):
            raise ResourceRefused("Topic", problem)
        if name.lower() in self._folded:
            raise ResourceRefused("Topic", f"exists already as {self._folded[name.lower()]}: names differ in more than case", exists=True)
        topic = ParentTopic(name, now, now, remark, by)
        self._folded[name.lower()] = name
        try:
            await self._topics.put(name, topic)
        except SluicewayError:
            del self._folded[name.lower()]
            raise
        return topic

    async def update_topic(self, name: str, remark: str, now: int) -> ParentTopic | None:
        topic = self._topics.get(name)
        if topic is None:
            return None
        topic = msgspec.structs.replace(topic, remark=remark, updated=now)
        await self._topics.put(name, topic)
        return topic

    async def delete_topic(self, name: str) -> bool:
        """False where there is none."""
        gone = await self._topics.drop(name)
        if gone:
            self._folded.pop(name.lower(), None)
        return gone
