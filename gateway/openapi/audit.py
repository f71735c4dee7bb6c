"""The log's lines about calls: who did what to what, from where, and who was refused for a reason of security.

Every action has a line but those that only read and those that send. What the access key may show for itself is shown: names of the allow-list
below, so that a parameter of a later action stays out of the log until somebody has thought about it. A message has no line (a backend sends
thousands a second); its record in the log names its key, and the metrics count it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.auth.login import Peer
from gateway.openapi.calls import Fields
from gateway.openapi.faults import Fault
from gateway.openapi.signing import Claim

if TYPE_CHECKING:
    from gateway.node import Node

READS: Final = ("Query", "BatchQuery", "Get", "List", "OnsMqttQuery")
"""Names of actions that change nothing begin so."""
SENDS: Final = frozenset({"SendMessage", "BatchSendMessages"})
SHOW_SECRETS: Final = frozenset({"GetDeviceCredential", "QueryCustomAuthIdentity"})
"""They change nothing either, but whoever asks has secrets afterwards."""
SECURITY: Final = frozenset(
    {
        "CheckAccountInfoFailed",
        "Forbidden",
        "Forbidden.Plaintext",
        "IncompleteSignature",
        "InstancePermissionCheckFailed",
        "InvalidAccessKeyId.NotFound",
        "InvalidTimeStamp.Expired",
        "PermissionCheckFailed",
        "RegisterCodeError",
        "SignatureDoesNotMatch",
        "SignatureNonceUsed",
        "Throttling",
    }
)
"""Codes of refusals that somebody may want to know of."""
SUBJECTS: Final = (
    *("GroupId", "Topic", "MqttTopic", "ClientId", "Username", "IdentityType", "Identity", "PermitAction", "Effect", "SignMode"),
    *("CaName", "Sn", "CaSn", "DeviceSn", "RuleId", "TargetInstanceId", "TargetTopic", "Status"),
    *("ResourceType", "ResourceId.1", "TagKey.1", "Tag.1.Key", "Resources", "Actions", "ExpireTime"),
)
"""Parameters that say what an action is about; none of them is ever a secret, a payload or a certificate."""
MAX_SHOWN: Final = 128
"""Characters of each."""

_log = logging.getLogger(__name__)


def is_noted(action: str) -> bool:
    return action in SHOW_SECRETS or not (action in SENDS or action.startswith(READS))


def done(peer: Peer, claim: Claim, fields: Fields) -> None:
    """An action was answered; some say in the answer that they did nothing."""
    if is_noted(claim.action):
        code = fields.get("Code", 200)
        _log.info("openapi action=%s key=%s peer=%s outcome=%s%s", claim.action, claim.key_id, peer.address, code, _subject(claim))


def refused(node: Node, peer: Peer, claim: Claim | None, fault: Fault) -> None:
    """A limited number of lines a second, since anybody can be refused. ``claim`` is None where it could not be read; none of it is proved."""
    if fault.code in SECURITY:
        node.counters.refused["openapi_" + fault.code.lower().replace(".", "_")] += 1
        key, action, subject = (claim.key_id[:64], claim.action[:64], _subject(claim)) if claim is not None else ("", "", "")
        node.refusals.say("openapi-refused", "peer=%s key=%r action=%r outcome=%s%s", peer.address, key, action, fault.code, subject)


def _subject(claim: Claim) -> str:
    return "".join(f" {name}={claim.parameters[name][:MAX_SHOWN]!r}" for name in SUBJECTS if claim.parameters.get(name))
