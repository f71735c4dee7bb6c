"""Principals and access keys. An access key signs for devices and backends of one instance; the administrator's is the CLI's own."""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

ANONYMOUS: Final = "anonymous"
"""The one principal of connections without a login."""


Role = Literal["device", "manager", "administrator", "anonymous"]
"""What a principal is for. A manager is a device that may also manage the instance over HTTP; an administrator does so on this machine."""


class AccessRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One access rule, of the static ``[[access]]`` list or a stored one. A rule that denies wins over one that allows.

    ``principal`` `*` stands for all, `user:*` and the like for all of a kind. Variables of filters: schemas/policies.py.
    """

    principal: str
    action: str
    filter: str
    effect: str = "allow"


class Tokens(Protocol):
    """The tokens that a connection has shown (gateway/auth/tokens.py)."""

    def covers(self, action: str, subject: str) -> bool:
        """Whether one of them is for the action on a topic (subscribe: a filter)."""

    def has(self, action: str) -> bool:
        """Whether one of them is for the action at all."""


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Who acts, by the name that sessions, records and access rules use.

    The name is an access key's id, ANONYMOUS, or a kind and a name: `user:` and `client:` (custom identities), `device:` (device
    credentials), `cert:` (client certificates), `jwt:`. ``client`` and ``user`` are what a connection said of itself; ``tokens`` narrow
    a Token login, ``claims`` are the rules that a JWT brings, ``signed_by`` is the thumbprint of the key that signed it, ``expires`` (ms, 0
    for never) is when it ends.
    """

    name: str
    role: Role = "device"
    client: str = ""
    user: str = ""
    tokens: Tokens | None = None
    claims: tuple[AccessRule, ...] = ()
    expires: int = 0
    signed_by: str = ""


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
    """``role`` is ``device``, ``manager`` or ``administrator``; secrets are sealed (encrypted at rest), times in ms.

    ``sealed_previous`` is the secret before a rotation; it is valid until ``previous_until``.
    """

    id: str
    role: Role
    sealed_secret: bytes
    created: int
    revoked: bool = False
    sealed_previous: bytes = b""
    previous_until: int = 0
