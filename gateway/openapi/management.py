"""Actions about what is registered: groups, topics, device credentials, tags, and the one instance that there is."""

from __future__ import annotations

from gateway.auth.devices import DeviceCredential
from gateway.auth.resources import ResourceRefused
from gateway.auth.tags import MAX_TAGS, RESOURCE_TYPES
from gateway.openapi.calls import Call, Fields
from gateway.openapi.faults import Fault
from schemas.resources import ParentTopic, group_id_problem, parent_topic_problem

MAX_PAGE = 100
MAX_PAGES = 1_000_000


# Groups


async def create_group(call: Call) -> Fields:
    call.check_instance(code="InstanceNotFound")
    group = call.parameters.text("GroupId")
    if problem := group_id_problem(group):
        raise call.parameters.fault("GroupId", problem)
    tags = call.parameters.pairs("Tags", MAX_TAGS)
    try:
        await call.node.registers.resources.create_group(group, call.principal.name, call.now)
    except ResourceRefused:
        raise Fault("GroupIdAlreadyExsited") from None
    if tags:
        await call.node.registers.tags.put("GROUP", [group], dict(tags))
    return {}


async def delete_group(call: Call) -> Fields:
    call.check_instance()
    group = call.parameters.text("GroupId")
    if not await call.node.registers.resources.delete_group(group):
        raise Fault("InvalidParameter", "GroupId", "there is no such group")
    await call.node.registers.tags.drop("GROUP", [group], None)
    return {}


async def list_groups(call: Call) -> Fields:
    call.check_instance()
    tags = call.node.registers.tags
    data = [
        {
            "GroupId": group.id,
            "InstanceId": call.instance,
            "IndependentNaming": True,
            "CreateTime": group.created,
            "UpdateTime": group.updated,
            "Tags": [{"TagKey": key, "TagValue": value} for key, value in tags.of("GROUP", group.id)],
        }
        for group in call.node.registers.resources.groups()
    ]
    return {"Data": data}


# Parent topics: names of the product, fields of our own, as no public description has any


async def create_topic(call: Call) -> Fields:
    call.check_instance()
    topic, remark = call.parameters.text("Topic"), call.parameters.optional("Remark")
    if problem := parent_topic_problem(topic):
        raise call.parameters.fault("Topic", problem)
    try:
        await call.node.registers.resources.create_topic(topic, remark, call.principal.name, call.now)
    except ResourceRefused as refused:
        raise Fault("InvalidParameter", "Topic", str(refused).removeprefix("Topic ")) from None
    return {}


async def update_topic(call: Call) -> Fields:
    call.check_instance()
    topic, remark = call.parameters.text("Topic"), call.parameters.optional("Remark")
    if await call.node.registers.resources.update_topic(topic, remark, call.now) is None:
        raise Fault("InvalidParameter", "Topic", "there is no such topic")
    return {}


async def delete_topic(call: Call) -> Fields:
    call.check_instance()
    if not await call.node.registers.resources.delete_topic(call.parameters.text("Topic")):
        raise Fault("InvalidParameter", "Topic", "there is no such topic")
    return {}


async def list_topics(call: Call) -> Fields:
    call.check_instance()
    return {"Data": [_topic(call, topic) for topic in call.node.registers.resources.topics()]}


def _topic(call: Call, topic: ParentTopic) -> Fields:
    return {
        "Topic": topic.name,
        "InstanceId": call.instance,
        "Remark": topic.remark,
        "CreateTime": topic.created,
        "UpdateTime": topic.updated,
    }


# Device credentials


async def register_device(call: Call) -> Fields:
    call.check_instance()
    return _credential(call, await call.node.registers.devices.register(call.client(of_group=True), call.now))


async def get_device(call: Call) -> Fields:
    call.check_instance()
    return _credential(call, call.node.registers.devices.get(call.client(of_group=True)))


async def refresh_device(call: Call) -> Fields:
    call.check_instance()
    return _credential(call, await call.node.registers.devices.refresh(call.client(of_group=True), call.now))


async def unregister_device(call: Call) -> Fields:
    call.check_instance()
    if not await call.node.registers.devices.unregister(call.client(of_group=True)):
        raise Fault("InvalidParameter", "ClientId", "this client has no device credential")
    return {}


def _credential(call: Call, found: DeviceCredential | None) -> Fields:
    if found is None:
        raise Fault("InvalidParameter", "ClientId", "this client has no device credential")
    shown = {
        "ClientId": found.client,
        "InstanceId": call.instance,
        "DeviceAccessKeyId": found.key_id,
        "DeviceAccessKeySecret": found.secret.reveal(),
        "CreateTime": found.created,
        "UpdateTime": found.updated,
    }
    return {"DeviceCredential": shown}


async def list_devices(call: Call) -> Fields:
    """By page number, or on from the last client id of the page before."""
    call.check_instance()
    parameters = call.parameters
    group, size = parameters.text("GroupId"), parameters.number("PageSize", 1, MAX_PAGE)
    page, token = parameters.number("PageNo", 1, MAX_PAGES, 1), parameters.optional("NextToken")
    devices = call.node.registers.devices
    if token or page == 1:
        clients, total = devices.clients(group, token, size)
    else:
        clients, total = devices.clients(group, "", page * size)
        clients = clients[(page - 1) * size :]
    following = clients[-1] if len(clients) == size else ""
    shown = {"ClientIdList": list(clients), "PageNo": str(page), "PageSize": str(size), "Total": str(total), "NextToken": following}
    return {"DeviceCredentialClientIdList": shown}


# The instance, and what is the cloud's alone


async def list_instances(call: Call) -> Fields:
    instance = {
        "InstanceId": call.instance,
        "InstanceName": call.node.settings.node.id,
        "InstanceStatus": 1,
        "InstanceType": 0,
        "KernelVersion": "V3",
        "RegionId": "",
        "CreateTime": call.services.node().started,
        "ExpireTime": 0,
        "OrderId": "",
        "Specific": "",
        "MqttTags": [{"TagKey": key, "TagValue": value} for key, value in call.node.registers.tags.of("INSTANCE", call.instance)],
    }
    return {"Code": "200", "Success": "true", "Message": "operation success.", "Instances": [instance]}


async def tag_resources(call: Call) -> Fields:
    kind, ids = _tagged(call)
    pairs = call.parameters.pairs("Tag", MAX_TAGS)
    if not pairs:
        raise call.parameters.fault("Tag", "is missing")
    await call.node.registers.tags.put(kind, ids, dict(pairs))
    return {"Code": "200", "Data": True, "Message": "operation success."}


async def untag_resources(call: Call) -> Fields:
    kind, ids = _tagged(call)
    keys = call.parameters.listed("TagKey", MAX_TAGS, required=False)
    every = call.parameters.optional("All").lower() == "true"
    if not keys and not every:
        raise call.parameters.fault("TagKey", "is missing: name keys, or set All to true")
    await call.node.registers.tags.drop(kind, ids, keys or None)
    return {"Code": "200", "Data": True, "Message": "operation success."}


async def list_tags(call: Call) -> Fields:
    kind = call.parameters.choice("ResourceType", RESOURCE_TYPES)
    ids = call.parameters.listed("ResourceId", MAX_PAGE, required=False)
    wanted = dict(call.parameters.pairs("Tag", MAX_TAGS))
    tags = call.node.registers.tags
    found = [
        {"ResourceId": resource, "ResourceType": kind, "TagKey": key, "TagValue": value}
        for resource in ids or tags.resources(kind)
        for key, value in tags.of(kind, resource)
        if not wanted or wanted.get(key) in (value, "")
    ]
    return {"Code": "200", "Success": "true", "Message": "operation success.", "TagResources": found, "NextToken": ""}


def _tagged(call: Call) -> tuple[str, list[str]]:
    """The resources that tags are for; they must exist."""
    kind = call.parameters.choice("ResourceType", RESOURCE_TYPES)
    ids = call.parameters.listed("ResourceId", MAX_PAGE)
    resources = call.node.registers.resources
    for resource in ids:
        if not {"INSTANCE": resource == call.instance, "GROUP": resources.group(resource), "TOPIC": resources.topic(resource)}[kind]:
            raise call.parameters.fault("ResourceId", f"there is no {kind.lower()} of that name")
    return kind, ids


async def disaster(call: Call) -> Fields:
    """There is one instance here, and no other to take over."""
    call.check_instance()
    return {"Code": 404, "Success": False, "Message": "this installation has one instance: there is none to recover to."}


async def set_sni(call: Call) -> Fields:
    """Certificates are files of this installation (tls.certificate), which are read again when they change."""
    call.check_instance("MqttInstanceId")
    raise Fault("ApiNotSupport", detail="Certificates are files that the settings name: tls.certificate, and tls.certificates by server name.")
