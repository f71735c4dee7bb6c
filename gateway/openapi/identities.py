"""Actions about custom identities, what they may do, and client ids that may not connect.

No public text lists the words of PermitAction and Effect; ours are PUB, SUB and ALL (PUB_SUB is the same), ALLOW and DENY, in any case.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final

from gateway.auth.identities import TYPES, IdentityRefused, name_problem, principal_name
from gateway.auth.policies import RuleRefused
from gateway.auth.shelf import ShelfFull
from gateway.openapi.calls import Call, Fields
from gateway.openapi.faults import Fault
from schemas.identities import AccessRule

MAX_PAGE: Final = 100
MAX_TOKEN: Final = 16_384
"""Characters of a NextToken: a rule's name holds a filter, and a character of it is up to eight here."""

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
            _token(call),
            size + 1,
            user=parameters.optional("Username"),
            identity_type=kind,
            client=parameters.optional("ClientId"),
        )
    )
    results = [
        {"Username": i.user, "Secret": i.secret.reveal(), "IdentityType": i.type, "ClientId": i.client, "SignMode": i.sign_mode} for _, i in found
    ]
    return _page([name for name, _ in found], results, size)


def _token(call: Call) -> str:
    """Where a page begins: a name of ours in hex, since names may hold what a URL may not."""
    try:
        return bytes.fromhex(call.parameters.optional("NextToken", MAX_TOKEN)).decode()
    except (ValueError, UnicodeDecodeError):
        raise Fault("InvalidParameter", "NextToken", "is not one that was given out") from None


def _page(names: Sequence[str], results: Sequence[Fields], size: int) -> Fields:
    """One more than ``size`` was looked for, to know whether there is another page; it goes on behind the last name of this one."""
    following = names[size - 1].encode().hex() if len(names) > size else ""
    return {**_DONE, "Data": {"NextToken": following, "Results": results[:size]}}


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
    size, after = parameters.number("Size", 1, MAX_PAGE), _token(call)
    kind = parameters.choice("IdentityType", TYPES) if parameters.optional("IdentityType") else ""
    identity, topic = parameters.optional("Identity"), parameters.optional("Topic", 1024)
    names: list[str] = []
    results: list[Fields] = []
    for of_kind in sorted((kind,) if kind else TYPES):
        for name, rule in call.node.registers.policies.page(after, principal_name(of_kind, identity) + ("\x00" if identity else "")):
            if topic in ("", rule.filter):
                named = {"Identity": rule.principal.partition(":")[2], "IdentityType": of_kind, "Topic": rule.filter}
                results.append({**named, "PermitAction": _WORDS[rule.action], "Effect": rule.effect.upper()})
                names.append(name)
            if len(names) > size:
                return _page(names, results, size)
    return _page(names, results, size)


async def add_block(call: Call) -> Fields:
    """The client's connection is closed: one that is here at once, one on another node when that has read of the block."""
    call.check_instance()
    client = call.client()
    if not await _do(call, call.node.registers.identities.block(client, call.now)):
        raise call.parameters.fault("ClientId", "is blocked already")
    call.node.here.close(client)
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
    if not client:
        return _blocks(identities.blocked(_token(call), size + 1), size)
    return _blocks([client] if identities.is_blocked(client) else [], size)


def _blocks(clients: Sequence[str], size: int) -> Fields:
    return _page(clients, [{"ClientId": client, "PermitAction": "CONNECT", "Effect": "DENY"} for client in clients], size)
