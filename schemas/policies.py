"""Access rules with variables, and what they come to for one client. Pure.

A filter may have a variable in the place of a whole level: `${client}`, `${group}`, `${device}`, `${user}`. Client ids and user names are
chosen by whoever connects, so a value is quoted: it stands for one level, as it is. A value that can't be one level (it is empty or missing,
holds `/`, `+`, `#` or NUL, or begins with `$` in the first level) opens nothing and closes more than it had to: a rule that allows doesn't
apply, a rule that denies holds for all that lies under the levels before the variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from schemas.identities import AccessRule, Principal
from schemas.resources import split_client_id
from schemas.topics import is_topic_filter

VARIABLES: Final = ("${client}", "${group}", "${device}", "${user}")
ACTIONS: Final = ("publish", "subscribe", "read", "*")
EFFECTS: Final = ("allow", "deny")

MAX_FILTER: Final = 1024
"""Characters of a rule's filter."""
MAX_PRINCIPAL: Final = 256
"""Characters of the name of a principal in a rule."""


def filter_problem(rule_filter: str) -> str:
    """What is wrong with a rule's filter, in words that follow its name; empty where nothing is."""
    if len(rule_filter) > MAX_FILTER:
        return f"has more than {MAX_FILTER} characters"
    if not is_topic_filter(rule_filter) or rule_filter.startswith("$share/"):
        return "is not an MQTT topic filter without $share"
    for level in rule_filter.split("/"):
        if "${" in level and level not in VARIABLES:
            return f"has an unknown variable or one that is not a whole level: {', '.join(VARIABLES)} stand alone between slashes"
    return ""


def rule_problem(rule: AccessRule) -> tuple[str, str] | None:
    """The field that is to blame and what is wrong with it; None for a valid rule."""
    if not 0 < len(rule.principal) <= MAX_PRINCIPAL or "\x00" in rule.principal:
        return "principal", f"must have 1 to {MAX_PRINCIPAL} characters: an access key's id, anonymous, user:NAME, ..., or * for all"
    if rule.action not in ACTIONS:
        return "action", f"must be one of {', '.join(ACTIONS)}"
    if rule.effect not in EFFECTS:
        return "effect", "must be allow or deny"
    if problem := filter_problem(rule.filter):
        return "filter", problem
    return None


def has_variables(rule_filter: str) -> bool:
    return "${" in rule_filter


def values_of(principal: Principal) -> Mapping[str, str]:
    """The variables of a principal; one without a value is empty."""
    parts = split_client_id(principal.client)
    group, device = parts if parts is not None else ("", "")
    return dict(zip(VARIABLES, (principal.client, group, device, principal.user), strict=True))


def substitute(rule_filter: str, values: Mapping[str, str], *, denies: bool) -> str | None:
    """The filter for one client; None where the rule doesn't apply to it."""
    levels: list[str] = []
    for level in rule_filter.split("/"):
        if level not in VARIABLES:
            levels.append(level)
            continue
        value = values[level]
        if not _is_level(value, first=not levels):
            return "/".join([*levels, "#"]) if denies else None
        levels.append(value)
    return "/".join(levels)


def _is_level(value: str, *, first: bool) -> bool:
    return bool(value) and not any(c in value for c in "/+#\x00") and not (first and value.startswith("$"))
