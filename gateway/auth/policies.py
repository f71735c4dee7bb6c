"""Access rules that are in force: the static list of the settings, and stored ones that can be changed while the gateway runs.

Knows which rules speak of a principal; what they come to is decided in access.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gateway.auth.shelf import DocumentStore, Shelf
from schemas.errors import SluicewayError
from schemas.identities import AccessRule
from schemas.policies import rule_problem
from schemas.reasons import ReasonCode

MAX_RULES: Final = 100_000
"""Stored rules in all, each of some 0.4 KB in memory."""
MAX_RULES_EACH: Final = 1_000
"""Rules that name one principal: each check that is not remembered looks at all of them."""


class RuleRefused(SluicewayError):
    """A rule that is not well formed or one too many; ``field`` is to blame."""

    reason_code = ReasonCode.NOT_AUTHORIZED

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


class Policies:
    """A stored rule is one for each principal, filter and action."""

    def __init__(self, store: DocumentStore | None = None, static: Sequence[AccessRule] = ()) -> None:
        self._static = _by_principal(static)
        self._shelf: Shelf[AccessRule] | None = None if store is None else Shelf(store, "policy", AccessRule, MAX_RULES)
        self._stored: dict[str, dict[str, AccessRule]] = {}
        """By principal, then by the name in the store."""

    async def load(self) -> None:
        if self._shelf is not None:
            await self._shelf.load()
            self._stored = {}
            for name, rule in self._shelf.items().items():
                self._stored.setdefault(rule.principal, {})[name] = rule

    @property
    def version(self) -> int:
        return 0 if self._shelf is None else self._shelf.version

    def of(self, principal: str) -> list[AccessRule]:
        """Rules that speak of a principal by name, of its kind, or of all."""
        kind, colon, _ = principal.partition(":")
        found: list[AccessRule] = []
        for name in ("*", f"{kind}:*", principal) if colon else ("*", principal):
            found += self._static.get(name, ())
            found += self._stored.get(name, {}).values()
        return found

    def stored(self, principal: str = "") -> Iterable[AccessRule]:
        """Stored rules in the order of principal, filter and action; ``principal`` empty for all."""
        return (rule for _, rule in self.page("", f"{principal}\x00" if principal else ""))

    def page(self, after: str, beginning: str) -> Iterator[tuple[str, AccessRule]]:
        """Stored rules by their name in the store, behind ``after``, with a principal that begins like this."""
        return iter(()) if self._shelf is None else self._shelf.page(after, MAX_RULES, beginning)

    def of_filter(self, principal: str, rule_filter: str) -> list[AccessRule]:
        """Stored rules of a principal that have this very filter."""
        return [rule for rule in self._stored.get(principal, {}).values() if rule.filter == rule_filter]

    async def put(self, *rules: AccessRule, instead_of: Sequence[AccessRule] = ()) -> None:
        """Store rules, in the place of others. RuleRefused where one is not valid."""
        for rule in rules:
            problem = rule_problem(rule)
            if problem is not None:
                raise RuleRefused(*problem)
            if len(self._stored.get(rule.principal, ())) >= MAX_RULES_EACH and _name(rule) not in self._stored[rule.principal]:
                raise RuleRefused("principal", f"has {MAX_RULES_EACH} rules already: remove some, or use a variable")
        added = {_name(rule): rule for rule in rules}
        gone = {_name(rule): rule for rule in instead_of if _name(rule) not in added}
        if self._shelf is None:
            raise RuleRefused("principal", "can't be given rules here: there is no store")
        await self._shelf.change(added, list(gone))
        for name, rule in gone.items():
            self._stored.get(rule.principal, {}).pop(name, None)
            if not self._stored.get(rule.principal, True):
                del self._stored[rule.principal]
        for name, rule in added.items():
            self._stored.setdefault(rule.principal, {})[name] = rule

    async def drop(self, *rules: AccessRule) -> bool:
        """Whether any of them was there."""
        there = [rule for rule in rules if _name(rule) in self._stored.get(rule.principal, {})]
        if there:
            await self.put(instead_of=there)
        return bool(there)

    def principals(self) -> Iterable[str]:
        """Whom static rules name, for a warning about names that belong to nobody."""
        return self._static.keys()


def _by_principal(rules: Sequence[AccessRule]) -> dict[str, list[AccessRule]]:
    found: dict[str, list[AccessRule]] = defaultdict(list)
    for rule in rules:
        found[rule.principal].append(rule)
    return dict(found)


def _name(rule: AccessRule) -> str:
    """In the store: NUL is in none of the parts, so that no two rules share a name."""
    return "\x00".join((rule.principal, rule.filter, rule.action))
