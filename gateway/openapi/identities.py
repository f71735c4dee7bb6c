"""Actions about custom identities, what they may do, and client ids that may not connect.

No public text lists the words of PermitAction and Effect; ours are PUB, SUB and ALL (PUB_SUB is the same), ALLOW and DENY, in any case.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

from gateway.auth.identities import TYPES, IdentityRefused, name_problem, principal_name
from gateway.auth.policies import RuleRefused
from gateway.auth.shelf import ShelfFull
from gateway.openapi.calls import Call, Fields
from gateway.openapi.faults import Fault
from schemas.identities import AccessRule

MAX_PAGE: Final = 100

_ACTIONS: Final = {"PUB": "publish", "SUB": "subscribe", "ALL": "*", "PUB_SUB": "*"}
_WORDS: Final = {"publish": "PUB", "subscribe": "SUB", "read": "SUB", "*": "ALL"}
_DONE: Final[dict[str, Any]] = {"Code": 200, "Success": True, "Message": "operation success."}


async def _do(call: Call, change: Awaitable[Any]) -> Any:
    try:
        return await change
    except ShelfFull:
        raise Fault("Customauth.over.capacity") from None
    except IdentityRefused as refused:
        raise call.parameters.fault(refused.field, str(refused).removeprefix(refused.field + " ")) from None
    except RuleRefused as refused:
        field = {"filter": "Topic", "principal": "Identity"}.get(refused.field, refused.field)
        raise call.parameters.fault(field, str(refused).removeprefix(refused.field + " ")) from None


def _identity(call: Call) -> tuple[str, str, str]:
    """User name, type and client id."""
    call.check_instance()
    kind = call.parameters.choice("IdentityType", TYPES)
    return call.parameters.text("Username"), kind, call.parameters.text("ClientId") if kind == "CLIENT" else ""


async def add_identity(call: Call) -> Fields:
    named = _identity(call)
    await _do(call, call.node.registers.identities.add(*named, call.parameters.text("Secret", 1024), call.parameters.text("SignMode")))
    return _DONE


async def update_identity(call: Call) -> Fields:
    named = _identity(call)
    await _do(call, call.node.registers.identities.update(*named, call.parameters.text("Secret", 1024), call.parameters.text("SignMode")))
    return _DONE


async def delete_identity(call: Call) -> Fields:
    """Its connections are closed."""
    if not await call.node.registers.identities.delete(*_identity(call)):
        raise call.parameters.fault("Username", "has no such identity")
    return _DONE


async def query_identities(call: Call) -> Fields:
    call.check_instance()
    parameters = call.parameters
    size = parameters.number("Size", 1, MAX_PAGE)
    kind = parameters.choice("IdentityType", TYPES) if parameters.optional("IdentityType") else ""
    found = list(
        call.node.registers.identities.page(
            _token(parameters.optional("NextToken", 512)),
            size,
            user=parameters.optional("Username"),
            identity_type=kind,
            client=parameters.optional("ClientId"),
        )
    )
    results = [
        {"Username": i.user, "Secret": i.secret.reveal(), "IdentityType": i.type, "ClientId": i.client, "SignMode": i.sign_mode} for _, i in found
    ]
    return {**_DONE, "Data": {"NextToken": found[-1][0].encode().hex() if len(found) == size else "", "Results": results}}


def _token(text: str) -> str:
    """Where a page begins: a name of ours in hex, since names may hold what a URL may not."""
    try:
        return bytes.fromhex(text).decode()
    except (ValueError, UnicodeDecodeError):
        raise Fault("InvalidParameter", "NextToken", "is not one that was given out") from None


def _principal(call: Call) -> tuple[str, str]:
    """The principal that rules name, and the filter."""
    call.check_instance()
    kind, identity = call.parameters.choice("IdentityType", TYPES), call.parameters.text("Identity")
    if problem := name_problem(identity):
        raise call.parameters.fault("Identity", problem)
    return principal_name(kind, identity), call.parameters.text("Topic", 1024)


def _rule(call: Call, principal: str, topic: str) -> AccessRule:
    action = _ACTIONS.get(call.parameters.text("PermitAction").upper())
    effect = call.parameters.text("Effect").lower()
    if action is None:
        raise call.parameters.fault("PermitAction", f"must be one of {', '.join(_ACTIONS)}")
    if effect not in ("allow", "deny"):
        raise call.parameters.fault("Effect", "must be ALLOW or DENY")
    if not call.node.registers.resources.admits_topic(topic):
        raise Fault("PermissionCheckFailed")
    return AccessRule(principal, action, topic, effect)


async def add_permission(call: Call) -> Fields:
    principal, topic = _principal(call)
    rule = _rule(call, principal, topic)
    if call.node.registers.policies.of_filter(principal, topic):
        raise call.parameters.fault("Topic", "has a permission of this identity already: update it")
    await _do(call, call.node.registers.policies.put(rule))
    return _DONE


async def update_permission(call: Call) -> Fields:
    principal, topic = _principal(call)
    rule, before = _rule(call, principal, topic), call.node.registers.policies.of_filter(principal, topic)
    if not before:
        raise call.parameters.fault("Topic", "has no permission of this identity")
    await _do(call, call.node.registers.policies.put(rule, instead_of=before))
    return _DONE


async def delete_permission(call: Call) -> Fields:
    principal, topic = _principal(call)
    if not await call.node.registers.policies.drop(*call.node.registers.policies.of_filter(principal, topic)):
        raise call.parameters.fault("Topic", "has no permission of this identity")
    return _DONE


async def query_permissions(call: Call) -> Fields:
    call.check_instance()
    parameters = call.parameters
    size, after = parameters.number("Size", 1, MAX_PAGE), parameters.optional("NextToken", 32)
    start = int(after) if after.isascii() and after.isdigit() else 0
    kind = parameters.choice("IdentityType", TYPES) if parameters.optional("IdentityType") else ""
    identity, topic = parameters.optional("Identity"), parameters.optional("Topic", 1024)
    found = []
    for rule in call.node.registers.policies.stored():
        of_kind, _, name = rule.principal.partition(":")
        wanted = of_kind.upper() in TYPES and kind in ("", of_kind.upper()) and identity in ("", name) and topic in ("", rule.filter)
        if wanted:
            word = {"Identity": name, "IdentityType": of_kind.upper(), "Topic": rule.filter}
            found.append({**word, "PermitAction": _WORDS[rule.action], "Effect": rule.effect.upper()})
    following = str(start + size) if start + size < len(found) else ""
    return {**_DONE, "Data": {"NextToken": following, "Results": found[start : start + size]}}


async def add_block(call: Call) -> Fields:
    """The client's connection is closed."""
    call.check_instance()
    client = call.client()
    if not await _do(call, call.node.registers.identities.block(client, call.now)):
        raise call.parameters.fault("ClientId", "is blocked already")
    call.services.close_connection(client)
    return _DONE


async def delete_block(call: Call) -> Fields:
    call.check_instance()
    if not await call.node.registers.identities.unblock(call.client()):
        raise call.parameters.fault("ClientId", "is not blocked")
    return _DONE


async def query_blocks(call: Call) -> Fields:
    call.check_instance()
    parameters, identities = call.parameters, call.node.registers.identities
    size, client = parameters.number("Size", 1, MAX_PAGE), parameters.optional("ClientId")
    if client:
        clients = [client] if identities.is_blocked(client) else []
    else:
        clients = identities.blocked(_token(parameters.optional("NextToken", 512)), size)
    results = [{"ClientId": name, "PermitAction": "CONNECT", "Effect": "DENY"} for name in clients]
    return {**_DONE, "Data": {"NextToken": clients[-1].encode().hex() if len(clients) == size else "", "Results": results}}
