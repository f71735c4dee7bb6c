"""Principals and access keys. An access key signs for devices and backends of one instance; the administrator's is the CLI's own."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

ANONYMOUS: Final = "anonymous"
"""The one principal of connections without a login."""


Role = Literal["device", "administrator", "anonymous"]


class Principal(msgspec.Struct, frozen=True):
    """Who acts. ``name`` is an access key's id, or ANONYMOUS; sessions, records and access rules call it by that."""

    name: str
    role: Role = "device"


class Secret:
    """A string that prints as stars; ``reveal`` is the one way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


class AccessKey(msgspec.Struct, frozen=True):
    """``role`` is ``device`` or ``administrator``; ``secret`` is sealed (encrypted at rest). ``created`` in ms."""

    id: str
    role: str
    sealed_secret: bytes
    created: int
    revoked: bool = False


class AccessRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the static ``[[access]]`` list. ``principal`` `*` stands for all; a rule that denies wins over one that allows."""

    principal: str
    action: str
    filter: str
    effect: str = "allow"
