"""Whether a rule may reach a topic of its connection: the connection's allow lists, and the names that are refused whatever they say.

A pattern is a topic's name in which `*` stands for any characters. An empty list allows nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from schemas.connections import ConnectionSettings
from schemas.rules import Rule, RuleError

FORBIDDEN_PREFIXES: Final = ("__", "%", "RMQ_SYS_", "rmq_sys_", "SCHEDULE_TOPIC", "CID_RMQ_SYS_")
FORBIDDEN_NAMES: Final = frozenset(("TBW102", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT", "DefaultHeartBeatSyncerTopic", "TRANS_CHECK_MAX_TIME_TOPIC"))
"""Topics that backends keep for themselves."""

LONGEST: Final = {"rocketmq": 127, "kafka": 249}
_ROCKETMQ_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", pattern)))


def is_allowed(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns takes the name."""
    return any(_compiled(pattern).fullmatch(name) for pattern in patterns)


def is_forbidden(name: str) -> bool:
    """Whether the name is a backend's own, which no allow list opens."""
    return name.startswith(FORBIDDEN_PREFIXES) or name in FORBIDDEN_NAMES or name in (".", "..")


def topic_problem(name: str, connection: ConnectionSettings, *, outflow: bool) -> str:
    """Why a rule may not use this topic of the connection; empty where it may."""
    if is_forbidden(name):
        return f"{name[:64]} is an internal topic of the backend: name another one"
    longest = LONGEST[connection.kind]
    if len(name) > longest:
        return f"the name has {len(name)} characters, {connection.kind} takes {longest}"
    if connection.kind == "rocketmq" and not _ROCKETMQ_NAME.fullmatch(name):
        return f"{name[:64]} is no RocketMQ topic: only letters, digits, - and _ are"
    patterns, option = (connection.allow_outflow, "allow_outflow") if outflow else (connection.allow_inflow, "allow_inflow")
    if not is_allowed(name, patterns):
        return f"{name[:64]} is not allowed: add it to {option} of [connections.{connection.name}]"
    return ""


def check_connection(rule: Rule, connections: Mapping[str, ConnectionSettings]) -> ConnectionSettings:
    """The rule's connection; RuleError where it isn't there or the rule asks for what it doesn't allow. Templates are checked as they are filled."""
    connection = connections.get(rule.connection)
    if connection is None:
        known = ", ".join(sorted(connections)) or "there are none"
        raise RuleError("connection", f"no [connections.{rule.connection}] in the settings; known: {known}")
    outflow = rule.kind != "inflow"
    if is_forbidden(rule.backend_topic):
        raise RuleError("backendTopic", f"{rule.backend_topic[:64]} is an internal topic of the backend: name another one")
    if "{" not in rule.backend_topic:
        problem = topic_problem(rule.backend_topic, connection, outflow=outflow)
        if problem:
            raise RuleError("backendTopic", problem)
    elif not connection.allow_outflow:
        raise RuleError("backendTopic", f"nothing is allowed: add patterns to allow_outflow of [connections.{connection.name}]")
    if rule.undelivered and (problem := topic_problem(rule.undelivered, connection, outflow=True)):
        raise RuleError("undelivered", problem)
    for field in ("tags", "sql", "tag"):
        if connection.kind != "rocketmq" and getattr(rule, field):
            raise RuleError(field, "Kafka has no tags and no SQL92 conditions: use filter, or leave it out")
    return connection
