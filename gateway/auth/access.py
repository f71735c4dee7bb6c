"""What a principal may do: one function, ``may``, for every way in and out. Default deny. Pure.

A key's default, and the anonymous principal's: everything in its instance except topics whose first level is reserved, of which it may
write the control topics and read what lies under `$SYS`. Administrators may do all. The `[[access]]` list changes that by three rules:

1. A rule that denies wins, whatever else allows. Rules apply to the principal they name, and to all where they name `*`.
2. A principal to whom any rule that allows applies may do just what such rules allow: they take the place of its default.
3. No rule opens a reserved level, and none closes the control topics, which act on the client's own session only.

A subscription is allowed where one rule covers all that its filter could match, and denied where one denying rule does. A filter that
reaches into a denied part is let in and the messages from there are left out: readers are checked at each delivery ("read").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from gateway.auth.keys import KeyRing
from schemas.identities import ANONYMOUS, AccessRule, Principal
from schemas.topics import matches, parse_subscription

Action = Literal["publish", "subscribe", "read"]

CONTROL_TOPICS: Final = frozenset({"$SYS/uploadToken", "$SYS/getOfflineMsg", "$SYS/enableOrderMsg"})
"""Topics that clients write to talk to the gateway."""

RESERVED_LEVELS: Final = ("$SYS", "$share", "$sluiceway")

_MEANS: Final[dict[str, tuple[Action, ...]]] = {
    "publish": ("publish",),
    "subscribe": ("subscribe", "read"),
    "read": ("read",),
    "*": ("publish", "subscribe", "read"),
}
"""What a rule's action stands for."""


class _Grants(msgspec.Struct, frozen=True):
    """The filters that apply to one principal, by action; ``allowed`` None: the default holds."""

    allowed: dict[str, tuple[str, ...]] | None
    denied: dict[str, tuple[str, ...]]


class Access:
    """The rules in force. Decisions may be cached until ``version`` changes."""

    def __init__(self, keyring: KeyRing, rules: Sequence[AccessRule] = ()) -> None:
        self._keyring = keyring
        self._for_all = _grants(rules, "*")
        self._named = {rule.principal: _grants(rules, rule.principal) for rule in rules}

    @property
    def version(self) -> int:
        """Changes whenever a decision may have changed."""
        return self._keyring.version

    def may(self, principal: Principal, action: Action, topic: str) -> bool:
        """Whether the principal may. ``topic`` is a topic name, or for "subscribe" a filter as subscribed, `$share/…` included."""
        if principal.name != ANONYMOUS and self._keyring.role(principal.name) is None:
            return False  # revoked while connected
        if principal.role == "administrator":
            return True
        if action == "publish" and topic in CONTROL_TOPICS:
            return True
        subject = topic
        if action == "subscribe":
            parsed = parse_subscription(topic)
            if parsed is None:
                return False
            subject = parsed.filter
        if not _is_open(action, subject):
            return False
        grants = self._named.get(principal.name, self._for_all)
        applies = covers if action == "subscribe" else matches
        if any(applies(denied, subject) for denied in grants.denied[action]):
            return False
        return grants.allowed is None or any(applies(allowed, subject) for allowed in grants.allowed[action])

    def may_read_all(self, principal: Principal) -> bool:
        """Whether what an allowed subscription brings needs no check at each delivery: no rule denies this principal to read."""
        return principal.role == "administrator" or not self._named.get(principal.name, self._for_all).denied["read"]

    def principals(self) -> Iterable[str]:
        """Whom rules name, for a warning about names that belong to nobody."""
        return self._named.keys()


def _is_open(action: Action, subject: str) -> bool:
    """Whether the first level is one that rules may speak about: a reserved one is closed, but for reading under `$SYS`."""
    first = subject.partition("/")[0]
    return first not in RESERVED_LEVELS or (first == "$SYS" and action != "publish")


def _grants(rules: Sequence[AccessRule], principal: str) -> _Grants:
    allowed: dict[str, tuple[str, ...]] = dict.fromkeys(_MEANS["*"], ())
    denied = dict(allowed)
    allows = False
    for rule in rules:
        if rule.principal not in ("*", principal):
            continue
        allows = allows or rule.effect == "allow"
        side = allowed if rule.effect == "allow" else denied
        for action in _MEANS[rule.action]:
            side[action] += (rule.filter,)
    return _Grants(allowed if allows else None, denied)


def covers(outer: str, inner: str) -> bool:
    """Whether every topic that ``inner`` matches is matched by ``outer``. Two filters that match alike in different words may say no."""
    if inner.startswith("$") and outer[:1] in ("+", "#"):
        return False  # [MQTT-4.7.2-1]
    outer_levels, inner_levels = outer.split("/"), inner.split("/")
    for index, level in enumerate(outer_levels):
        if level == "#":
            return True
        if index >= len(inner_levels) or inner_levels[index] == "#" or level not in ("+", inner_levels[index]):
            return False
    return len(outer_levels) == len(inner_levels)
