"""Actions about rules, of three kinds: what leaves a parent topic, what comes to one, and what is told of a group's clients.

The names are the product's; the fields are ours, since no public description has any. The other end (Target…) is a connection of the
settings and a topic there, whichever way messages go. gateway/rules/management.py checks and does it all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.openapi.calls import Action, Call, Fields
from gateway.openapi.faults import Fault
from gateway.openapi.parameters import Parameters
from schemas.rules import RuleError

MAX_PAGE: Final = 100
MAX_PAGES: Final = 1_000_000
MAX_DESCRIPTION: Final = 256
STATUS: Final = ("0", "1")
"""Disabled and enabled, as the product has it of certificates."""
TYPES: Final = {"ROCKETMQ": "rocketmq", "KAFKA": "kafka"}
FAMILIES: Final = {"MqttOutboundRule": "outflow", "MqttInboundRule": "inflow", "ClientStatusNotifyRule": "status"}
NAMES: Final = {
    "id": "RuleId",
    "description": "Description",
    "enabled": "Status",
    "topic": "MqttTopic",
    "group": "GroupId",
    "connection": "TargetInstanceId",
    "backendTopic": "TargetTopic",
}
"""Our fields as the actions call them."""

Run = Callable[[Call], Awaitable[Fields]]
Work = Callable[[Call, str], Awaitable[Fields]]


def _of(kind: str, work: Work) -> Run:
    """The action for rules of a kind: for the one instance, with what management refuses as a fault."""

    async def run(call: Call) -> Fields:
        call.check_instance()
        try:
            return await work(call, kind)
        except RuleError as refused:
            raise Fault("InvalidParameter", NAMES.get(refused.field, "RuleId"), refused.message) from None

    return run


async def _create(call: Call, kind: str) -> Fields:
    resource = _resource(kind)
    parameters = call.parameters
    given = {"id": parameters.text("RuleId"), "kind": kind, resource: parameters.text(NAMES[resource])}
    given |= {"connection": parameters.text("TargetInstanceId"), "backendTopic": parameters.text("TargetTopic")}
    await call.services.rules.create(given | _changes(call), by=call.principal.name)
    return {}


async def _update(call: Call, kind: str) -> Fields:
    """What is not there stays as it is."""
    shown = _shown(call, kind)
    parameters = call.parameters
    changes = _changes(call)
    for field in (_resource(kind), "connection", "backendTopic"):
        if value := parameters.optional(NAMES[field]):
            changes[field] = value
    if not changes:
        raise parameters.fault("RuleId", "and nothing to change are given: give Description, Status or another field")
    await call.services.rules.update(shown["id"], changes, by=call.principal.name)
    return {}


async def _delete(call: Call, kind: str) -> Fields:
    await call.services.rules.delete(_shown(call, kind)["id"], by=call.principal.name)
    return {}


async def _list(call: Call, kind: str) -> Fields:
    """By rule id; a page behind the last one is empty."""
    parameters = call.parameters
    page, size = parameters.number("PageNo", 1, MAX_PAGES, 1), parameters.number("PageSize", 1, MAX_PAGE, MAX_PAGE)
    wanted = parameters.optional("RuleId")
    rules = [rule for rule in call.services.rules.all() if rule["kind"] == kind and (not wanted or rule["id"] == wanted)]
    shown = [_row(call, rule) for rule in rules[(page - 1) * size : page * size]]
    return {"Data": {"PageNo": page, "PageSize": size, "Total": len(rules), "Rules": shown}}


def _resource(kind: str) -> str:
    return "group" if kind == "status" else "topic"


def _changes(call: Call) -> dict[str, Any]:
    """Description and Status, where they are given; a TargetType must be that of the connection."""
    parameters = call.parameters
    changes: dict[str, Any] = {}
    if description := parameters.optional("Description", MAX_DESCRIPTION):
        changes["description"] = description
    if parameters.optional("Status"):
        changes["enabled"] = bool(STATUS.index(parameters.choice("Status", STATUS)))
    if parameters.optional("TargetType"):
        _check_type(call, parameters)
    return changes


def _check_type(call: Call, parameters: Parameters) -> None:
    kind, name = TYPES[parameters.choice("TargetType", tuple(TYPES))], parameters.text("TargetInstanceId")
    found = _connections(call).get(name)
    if found is not None and found != kind:
        raise parameters.fault("TargetType", f"is not that of the connection, which is {found.upper()}")


def _connections(call: Call) -> Mapping[str, str]:
    return {connection.name: connection.kind for connection in call.node.settings.connections}


def _shown(call: Call, kind: str) -> dict[str, Any]:
    """The rule that is meant, of this kind."""
    shown = call.services.rules.show(call.parameters.text("RuleId"))
    if shown["kind"] != kind:
        raise RuleError("id", "there is no rule of this id and kind", missing=True)
    return shown


def _row(call: Call, rule: Mapping[str, Any]) -> Fields:
    resource = _resource(rule["kind"])
    return {
        "RuleId": rule["id"],
        "InstanceId": call.instance,
        "Description": rule["description"],
        "Status": int(rule["enabled"]),
        NAMES[resource]: rule[resource],
        "TargetType": _connections(call).get(rule["connection"], "").upper(),
        "TargetInstanceId": rule["connection"],
        "TargetTopic": rule["backendTopic"],
    }


def _family(name: str, kind: str) -> dict[str, Action]:
    bad = "InvalidParameter"
    return {
        f"Create{name}": Action(_of(kind, _create), bad, manages=True),
        f"Update{name}": Action(_of(kind, _update), bad, manages=True),
        f"Delete{name}": Action(_of(kind, _delete), bad, manages=True),
        f"List{name}InPage": Action(_of(kind, _list), bad),
    }


RULE_ACTIONS: Final = {name: action for family, kind in FAMILIES.items() for name, action in _family(family, kind).items()}
