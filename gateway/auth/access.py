"""What a principal may do: one function, ``may``, for every way in and out. Default deny. Pure.

The default of access keys, device credentials, bearer keys and the anonymous principal: everything in the instance except topics whose first level is
reserved, of which they may write the control topics and read what lies under `$SYS`. Other principals have no default. Administrators may
do all. Rules (policies.py) change that:

1. A rule that denies wins, whatever else allows. Rules apply to the principal they name, to all of a kind (`user:*`), and to all (`*`).
2. A principal to whom any rule that allows applies may do just what such rules allow: they take the place of its default.
3. No rule opens a reserved level, and none closes the control topics, which act on the client's own session only.

A subscription is allowed where one rule covers all that its filter could match, and denied where one denying rule does. A filter that
reaches into a denied part is let in and the messages from there are left out: readers are checked at each delivery ("read"). What is sent to
one device (P2P, "receive") needs no rule that allows, and no rule that denies reading there. "keep" is "read" for a session that is away
or waits for a token: what may be stored for it; it is asked again at delivery.

What rules come to for a client is compiled once and kept until ``version`` changes, and whoever asks often keeps the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from gateway.auth.keys import KeyRing
from gateway.auth.policies import Policies
from gateway.auth.resources import Resources
from schemas.identities import ANONYMOUS, AccessRule, Principal
from schemas.policies import has_variables, substitute, values_of
from schemas.topics import matches, parse_subscription

Action = Literal["publish", "subscribe", "read", "receive", "keep"]

CONTROL_TOPICS: Final = frozenset({"$SYS/uploadToken", "$SYS/getOfflineMsg", "$SYS/enableOrderMsg"})
"""Topics that clients write to talk to the gateway."""

RESERVED_LEVELS: Final = ("$SYS", "$share", "$sluiceway")

MAX_COMPILED: Final = 65_536
"""Principals whose rules are kept compiled; when there are more, all are forgotten at once."""

_MEANS: Final[dict[str, tuple[str, ...]]] = {
    "publish": ("publish",),
    "subscribe": ("subscribe", "read"),
    "read": ("read",),
    "*": ("publish", "subscribe", "read"),
}
"""What a rule's action stands for."""

_ASKED: Final[dict[str, str]] = {"publish": "publish", "subscribe": "subscribe", "read": "read", "receive": "read", "keep": "read"}
"""The rules that speak of what is asked."""

_WITH_DEFAULT: Final = ("", "device", "bearer")
"""Kinds of principals that may do all as long as no rule allows: access keys, the anonymous principal, device credentials, bearer keys."""


class _Grants(msgspec.Struct, frozen=True):
    """The filters that apply to one principal, by action; ``allowed`` None: the default holds."""

    allowed: dict[str, tuple[str, ...]] | None
    denied: dict[str, tuple[str, ...]]


class Access:
    """The rules in force. Decisions may be cached until ``version`` changes. A kind of principals that ``knows`` was not called for is unknown."""

    def __init__(
        self,
        keyring: KeyRing,
        rules: Sequence[AccessRule] = (),
        *,
        policies: Policies | None = None,
        resources: Resources | None = None,
    ) -> None:
        self._keyring = keyring
        self.policies = policies if policies is not None else Policies(static=rules)
        self._resources = resources if resources is not None and resources.mandatory else None
        self._known: dict[str, Callable[[str], bool]] = {"": lambda name: name == ANONYMOUS or keyring.role(name) is not None}
        self._watched: list[Callable[[], int]] = []
        self._compiled: dict[Hashable, _Grants] = {}
        self._compiled_at = -1
        self._with_variables: dict[str, bool] = {}

    def knows(self, kind: str, known: Callable[[str], bool], version: Callable[[], int]) -> None:
        """Principals of a further kind: whether there is one of a full name, and a number that grows when that changes."""
        self._known[kind] = known
        self._watched.append(version)

    @property
    def version(self) -> int:
        """Changes whenever a decision may have changed."""
        resources = 0 if self._resources is None else self._resources.version
        return self._keyring.version + self.policies.version + resources + sum(version() for version in self._watched)

    def is_known(self, principal: Principal) -> bool:
        """Whether the principal is still there: its key not revoked, its identity not deleted."""
        known = self._known.get(_kind(principal.name))
        return known is not None and known(principal.name)

    def may(self, principal: Principal, action: Action, topic: str) -> bool:
        """Whether the principal may. ``topic`` is a topic name, or for "subscribe" a filter as subscribed, `$share/…` included."""
        if not self.is_known(principal):
            return False
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
        if self._resources is not None and not self._resources.admits_topic(subject):
            return False
        return self._rules_allow(principal, action, subject) and _tokens_cover(principal, action, subject)

    def _rules_allow(self, principal: Principal, action: Action, subject: str) -> bool:
        grants, asked = self._grants(principal), _ASKED[action]
        if grants.allowed is None and not grants.denied[asked]:
            return True
        applies = covers if action == "subscribe" else matches
        if any(applies(denied, subject) for denied in grants.denied[asked]):
            return False
        return action == "receive" or grants.allowed is None or any(applies(allowed, subject) for allowed in grants.allowed[asked])

    def may_read_all(self, principal: Principal) -> bool:
        """Whether what an allowed subscription brings needs no check at each delivery."""
        if principal.role == "administrator":
            return True
        if self._resources is not None or principal.tokens is not None:
            return False
        grants = self._grants(principal)
        return grants.allowed is None and not grants.denied["read"] and self.is_known(principal)

    def principals(self) -> Iterable[str]:
        """Whom static rules name, for a warning about names that belong to nobody."""
        return self.policies.principals()

    def _grants(self, principal: Principal) -> _Grants:
        if self._compiled_at != self.policies.version or len(self._compiled) > MAX_COMPILED:
            self._compiled.clear()
            self._with_variables.clear()
            self._compiled_at = self.policies.version
        name = principal.name
        if principal.claims:
            claimed = (name, principal.client, principal.user, principal.claims)
            if claimed not in self._compiled:
                self._compiled[claimed] = _compile((*self.policies.of(name), *principal.claims), principal)
            return self._compiled[claimed]
        varies = self._with_variables.get(name)
        if varies is None:
            if len(self._with_variables) > MAX_COMPILED:
                self._with_variables.clear()
            varies = self._with_variables[name] = any(has_variables(rule.filter) for rule in self.policies.of(name))
        key = (name, principal.client, principal.user) if varies else name
        grants = self._compiled.get(key)
        if grants is None:
            grants = self._compiled[key] = _compile(self.policies.of(name), principal)
        return grants


def _kind(name: str) -> str:
    kind, colon, _ = name.partition(":")
    return kind if colon else ""


def _is_open(action: Action, subject: str) -> bool:
    """Whether the first level is one that rules may speak about: a reserved one is closed, but for reading under `$SYS`."""
    first = subject.partition("/")[0]
    return first not in RESERVED_LEVELS or (first == "$SYS" and action != "publish")


def _tokens_cover(principal: Principal, action: Action, subject: str) -> bool:
    """A Token login may do what its key may and a token says; what waits for it needs no token, only a delivery does."""
    return principal.tokens is None or action in ("keep", "receive") or principal.tokens.covers(action, subject)


def _compile(rules: Iterable[AccessRule], principal: Principal) -> _Grants:
    allowed: dict[str, tuple[str, ...]] = dict.fromkeys(_MEANS["*"], ())
    denied = dict(allowed)
    allows = False
    values: Mapping[str, str] | None = None
    for rule in rules:
        allows = allows or rule.effect == "allow"
        filled: str | None = rule.filter
        if has_variables(rule.filter):
            values = values_of(principal) if values is None else values
            filled = substitute(rule.filter, values, denies=rule.effect == "deny")
        if filled is not None:
            side = allowed if rule.effect == "allow" else denied
            for action in _MEANS[rule.action]:
                side[action] += (filled,)
    return _Grants(allowed if allows or _kind(principal.name) not in _WITH_DEFAULT else None, denied)


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
