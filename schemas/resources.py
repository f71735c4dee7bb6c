"""What an installation has names for: instance, group ids, parent topics; and the client id `<group id>@@@<device id>`. Grammar only.

Each check answers with what is wrong, in words that follow the name of the field, or with an empty string. What exists is known by
gateway/auth/resources.py.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

SEPARATOR: Final = "@@@"
GROUP_PREFIXES: Final = ("GID_", "GID-")
MAX_CLIENT_ID: Final = 64

_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")
_INSTANCE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Group(msgspec.Struct, frozen=True):
    """A group id; times in ms of the wall clock."""

    id: str
    created: int
    updated: int
    by: str = ""


class ParentTopic(msgspec.Struct, frozen=True):
    """The first level of topics."""

    name: str
    created: int
    updated: int
    remark: str = ""
    by: str = ""


class ClientParts(NamedTuple):
    group: str
    device: str


def instance_id_problem(text: str) -> str:
    return "" if _INSTANCE.fullmatch(text) else "must be 1 to 64 letters, digits, - and _"


def group_id_problem(text: str) -> str:
    """7 to 64 characters, beginning with GID_ or GID-."""
    if not text.startswith(GROUP_PREFIXES):
        return "must begin with GID_ or GID-"
    if not 7 <= len(text) <= 64 or not _WORD.fullmatch(text):
        return "must be 7 to 64 letters, digits, - and _"
    return ""


def parent_topic_problem(text: str) -> str:
    return "" if 3 <= len(text) <= 64 and _WORD.fullmatch(text) else "must be 3 to 64 letters, digits, - and _"


def split_client_id(client: str) -> ClientParts | None:
    """Group and device of a client id; None where it has another form. Says nothing of which groups there are."""
    group, separator, device = client.partition(SEPARATOR)
    if not separator or not _WORD.fullmatch(device) or group_id_problem(group):
        return None
    return ClientParts(group, device)


def client_id_problem(client: str) -> str:
    """For what the model product demands: at most 64 characters, `<group id>@@@<device id>`, both of letters, digits, - and _."""
    if len(client) > MAX_CLIENT_ID:
        return f"must have at most {MAX_CLIENT_ID} characters"
    if split_client_id(client) is None:
        return "must be <group id>@@@<device id>, of letters, digits, - and _, and begin with GID_ or GID-"
    return ""
