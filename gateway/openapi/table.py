"""Every action by its name."""

from __future__ import annotations

from typing import Final

from gateway.openapi import certificates, identities, management, messaging, traces
from gateway.openapi.calls import Action
from gateway.openapi.rules import RULE_ACTIONS

_CHECK: Final = "ParameterCheckFailed"
_FIELD: Final = "ParameterFieldCheckFailed"
_NAMED: Final = "InvalidParameter"
_TRACES: Final = ("2020-04-20", "2021-05-27")
"""Both are named in descriptions of the product; its SDKs send the first."""

ACTIONS: Final[dict[str, Action]] = {
    "QuerySessionByClientId": Action(messaging.query_session, _NAMED),
    "BatchQuerySessionByClientIds": Action(messaging.batch_query_sessions, _NAMED),
    "QuerySessionsByGroupId": Action(messaging.query_sessions_of_group, _NAMED, manages=True),
    "OnsMqttQueryClientByGroupId": Action(messaging.query_group_online, _NAMED, manages=True, versions=("2020-04-20", "2019-02-14")),
    "CloseConnection": Action(messaging.close_connection, _NAMED, manages=True),
    "SendMessage": Action(messaging.send_message, _CHECK),
    "BatchSendMessages": Action(messaging.batch_send_messages, _CHECK, versions=("2019-12-11",)),
    "ApplyToken": Action(messaging.apply_token, _CHECK),
    "QueryToken": Action(messaging.query_token, _CHECK),
    "RevokeToken": Action(messaging.revoke_token, _CHECK),
    "CreateGroupId": Action(management.create_group, _FIELD, manages=True),
    "DeleteGroupId": Action(management.delete_group, _FIELD, manages=True),
    "ListGroupId": Action(management.list_groups, _FIELD),
    "CreateTopic": Action(management.create_topic, _FIELD, manages=True),
    "UpdateTopic": Action(management.update_topic, _FIELD, manages=True),
    "DeleteTopic": Action(management.delete_topic, _FIELD, manages=True),
    "ListTopic": Action(management.list_topics, _FIELD),
    "RegisterDeviceCredential": Action(management.register_device, _CHECK, manages=True),
    "GetDeviceCredential": Action(management.get_device, _CHECK, manages=True),
    "RefreshDeviceCredential": Action(management.refresh_device, _CHECK, manages=True),
    "UnRegisterDeviceCredential": Action(management.unregister_device, _CHECK, manages=True),
    "ListDeviceCredentialClientId": Action(management.list_devices, _CHECK, manages=True),
    "ListInstances": Action(management.list_instances, _NAMED),
    "TagResources": Action(management.tag_resources, _NAMED, manages=True),
    "UntagResources": Action(management.untag_resources, _NAMED, manages=True),
    "ListTagResources": Action(management.list_tags, _NAMED),
    "DisasterRecovery": Action(management.recover, _NAMED, manages=True),
    "DisasterDowngrade": Action(management.downgrade, _NAMED, manages=True),
    "SetSniConfig": Action(management.set_sni, _NAMED, manages=True),
    "AddCustomAuthIdentity": Action(identities.add_identity, _NAMED, manages=True),
    "UpdateCustomAuthIdentity": Action(identities.update_identity, _NAMED, manages=True),
    "DeleteCustomAuthIdentity": Action(identities.delete_identity, _NAMED, manages=True),
    "QueryCustomAuthIdentity": Action(identities.query_identities, _NAMED, manages=True),
    "AddCustomAuthPermission": Action(identities.add_permission, _NAMED, manages=True),
    "UpdateCustomAuthPermission": Action(identities.update_permission, _NAMED, manages=True),
    "DeleteCustomAuthPermission": Action(identities.delete_permission, _NAMED, manages=True),
    "QueryCustomAuthPermission": Action(identities.query_permissions, _NAMED, manages=True),
    "AddCustomAuthConnectBlack": Action(identities.add_block, _NAMED, manages=True),
    "DeleteCustomAuthConnectBlack": Action(identities.delete_block, _NAMED, manages=True),
    "QueryCustomAuthConnectBlack": Action(identities.query_blocks, _NAMED, manages=True),
    "GetRegisterCode": Action(certificates.get_register_code, _FIELD, manages=True),
    "RegisterCaCertificate": Action(certificates.register_ca, _FIELD, manages=True),
    "GetCaCertificate": Action(certificates.get_ca, _FIELD, manages=True),
    "ListCaCertificate": Action(certificates.list_cas, _FIELD, manages=True),
    "ActiveCaCertificate": Action(certificates.activate_ca, _FIELD, manages=True),
    "InactivateCaCertificate": Action(certificates.inactivate_ca, _FIELD, manages=True),
    "DeleteCaCertificate": Action(certificates.delete_ca, _FIELD, manages=True),
    "GetDeviceCertificate": Action(certificates.get_device, _FIELD, manages=True),
    "ListDeviceCertificate": Action(certificates.list_devices, _FIELD, manages=True),
    "ListDeviceCertificateByCaSn": Action(certificates.list_devices_of_ca, _FIELD, manages=True),
    "ActiveDeviceCertificate": Action(certificates.activate_device, _FIELD, manages=True),
    "InactivateDeviceCertificate": Action(certificates.inactivate_device, _FIELD, manages=True),
    "DeleteDeviceCertificate": Action(certificates.delete_device, _FIELD, manages=True),
    "QueryMqttTraceDevice": Action(traces.device, _NAMED, manages=True, versions=_TRACES),
    "QueryMqttTraceMessageOfClient": Action(traces.messages_of_client, _NAMED, manages=True, versions=_TRACES),
    "QueryMqttTraceMessagePublish": Action(traces.message_publish, _NAMED, manages=True, versions=_TRACES),
    "QueryMqttTraceMessageSubscribe": Action(traces.message_subscribe, _NAMED, manages=True, versions=_TRACES),
    **RULE_ACTIONS,
}
