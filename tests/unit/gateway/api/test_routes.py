"""The HTTP API: who may call what, what it answers, and that every fault names its field and no internals."""

import asyncio
import base64
import json

import pytest

from gateway.api import guard
from gateway.api.routes import create_api
from gateway.cluster.asking import Unanswered
from gateway.protocol.properties import Properties
from schemas.identities import AccessRule
from schemas.limits import Limits
from tests.unit.gateway.api.services import FakeServices

CHANGES = [("GET", ""), ("POST", "/activate"), ("POST", "/deactivate"), ("DELETE", "")]
ROUTES = [
    ("GET", "/api/v1/node", "any key"),
    ("GET", "/api/v1/status/off", "any key"),
    ("POST", "/api/v1/publish", "any key"),
    ("GET", "/api/v1/sessions/on/line", "administrator"),
    ("DELETE", "/api/v1/connections/on/line", "administrator"),
    ("GET", "/api/v1/keys", "administrator"),
    ("POST", "/api/v1/keys", "administrator"),
    ("DELETE", "/api/v1/keys/none", "administrator"),
    ("POST", "/api/v1/keys/none/rotate", "administrator"),
    ("POST", "/api/v1/signature", "manager"),
    ("GET", "/api/v1/bearer-keys", "administrator"),
    ("POST", "/api/v1/bearer-keys", "administrator"),
    ("DELETE", "/api/v1/bearer-keys/none", "administrator"),
    ("GET", "/api/v1/groups", "manager"),
    ("POST", "/api/v1/groups", "manager"),
    ("DELETE", "/api/v1/groups/none", "manager"),
    ("GET", "/api/v1/groups/GID_none/clients", "manager"),
    ("GET", "/api/v1/online", "manager"),
    ("GET", "/api/v1/trace", "manager"),
    ("GET", "/api/v1/history/on/line", "manager"),
    ("GET", "/api/v1/statuses?client=off", "any key"),
    ("GET", "/api/v1/topics", "manager"),
    ("POST", "/api/v1/topics", "manager"),
    ("DELETE", "/api/v1/topics/none", "manager"),
    ("GET", "/api/v1/policies", "manager"),
    ("PUT", "/api/v1/policies", "manager"),
    ("DELETE", "/api/v1/policies", "manager"),
    ("GET", "/api/v1/registration-code", "manager"),
    ("GET", "/api/v1/authorities", "manager"),
    ("POST", "/api/v1/authorities", "manager"),
    *((method, f"/api/v1/authorities/{{serial}}{verb}", "manager") for method, verb in CHANGES),
    ("GET", "/api/v1/certificates", "manager"),
    *((method, f"/api/v1/certificates/{{authority}}/{{serial}}{verb}", "manager") for method, verb in CHANGES),
]


def error(response, status):
    assert response.status_code == status, response.text
    return response.json()["error"]


@pytest.mark.parametrize(("method", "path", "needs"), ROUTES)
async def test_every_route_wants_its_key(api, method, path, needs):
    refused = await api.ask(method, path, json={"topic": "a"})
    assert error(refused, 401)["code"] == "unauthorized"
    assert refused.headers["www-authenticate"].startswith("Basic")
    body = {"name": "x"} if "bearer" in path else {} if "/keys" in path else {"topic": "a"}
    body = {"principal": "p", "action": "*", "filter": "a"} if "policies" in path else {"groupId": "x"} if "groups" in path else body
    as_device = await api.ask(method, path, key=api.device, json=body)
    as_manager = await api.ask(method, path, key=api.manager, json=body)
    as_administrator = await api.ask(method, path, key=api.administrator, json=body)
    assert (as_device.status_code == 403) is (needs != "any key")
    assert (as_manager.status_code == 403) is (needs == "administrator")
    assert as_administrator.status_code not in (401, 403)


def test_the_table_of_routes_is_whole(api):
    names = {"/status/off": "/status/{client_id}", "/sessions/on/line": "/sessions/{client_id}"}
    names |= {"/connections/on/line": "/connections/{client_id}", "/keys/none": "/keys/{key_id}", "/keys/none/rotate": "/keys/{key_id}/rotate"}
    names |= {"/groups/GID_none/clients": "/groups/{group_id}/clients", "/history/on/line": "/history/{client_id}"}
    names |= {"/statuses?client=off": "/statuses"}
    names |= {"/bearer-keys/none": "/bearer-keys/{key_id}", "/groups/none": "/groups/{group_id}", "/topics/none": "/topics/{topic}"}
    known = {(method, "/api/v1" + names.get(path.removeprefix("/api/v1"), path.removeprefix("/api/v1"))) for method, path, _ in ROUTES}
    paths = api.app.openapi()["paths"]
    found = {(method.upper(), path) for path, methods in paths.items() for method in methods if not path.startswith("/api/v1/rules")}
    assert found == known | {("GET", "/metrics"), ("GET", "/healthz"), ("GET", "/readyz")}


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic !!!", "Basic " + base64.b64encode(b"\xff\xfe").decode(), "Basic " + base64.b64encode(b"nobody").decode(), "Bearer x", ""],
)
async def test_what_is_no_login_gets_401(api, header):
    error(await api.ask("GET", "/api/v1/node", headers={"Authorization": header}), 401)


async def test_secrets_in_clear_text_are_refused_from_other_machines(api):
    assert "allow_plaintext_login" in error(await api.ask("GET", "/api/v1/node", key=api.device, peer="192.0.2.9"), 403)["message"]
    assert (await api.ask("GET", "/healthz", peer="192.0.2.9")).status_code == 200


async def test_a_forwarded_header_makes_nobody_local(api):
    error(await api.ask("GET", "/api/v1/node", key=api.device, peer="192.0.2.9", headers={"X-Forwarded-For": "127.0.0.1"}), 403)


async def test_the_open_pages(api):
    assert (await api.ask("GET", "/healthz")).json() == {"status": "ok"}
    assert (await api.ask("GET", "/readyz")).json() == {"ready": True, "reasons": []}
    metrics = await api.ask("GET", "/metrics")
    assert metrics.content == b"# HELP x y\n"
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    error(await api.ask("POST", "/metrics"), 405)
    error(await api.ask("GET", "/docs"), 401)
    error(await api.ask("GET", "/openapi.json"), 401)
    error(await api.ask("GET", "/redoc"), 404)


async def test_not_ready_is_503_with_reasons(api):
    api.services.reasons = ["the log can't write"]
    response = await api.ask("GET", "/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "reasons": ["the log can't write"]}


async def test_a_log_that_may_lose_what_it_acknowledged_is_named_and_ready_all_the_same(api):
    api.services.doubts = ["topic t has 1 of 3 replicas"]
    response = await api.ask("GET", "/readyz")
    assert response.status_code == 200
    assert response.json() == {"ready": True, "reasons": [], "durability": "as configured", "doubts": ["topic t has 1 of 3 replicas"]}


async def test_node_says_where_it_listens(api):
    found = (await api.ask("GET", "/api/v1/node", key=api.device)).json()
    assert found["instanceId"] == "mqtt-sw-test"
    assert found["listeners"] == {"mqtt": ["127.0.0.1:1883"]}


async def test_status_of_clients(api):
    online = (await api.ask("GET", "/api/v1/status/on/line", key=api.device)).json()
    assert online == {"clientId": "on/line", "online": True, "time": 1700000000000, "channelId": "c" * 32, "address": "127.0.0.1:9"}
    assert (await api.ask("GET", "/api/v1/status/off", key=api.device)).json() == {"clientId": "off", "online": False, "time": 7}
    error(await api.ask("GET", "/api/v1/status/never", key=api.device), 404)


async def test_a_session_with_its_subscriptions(api):
    found = (await api.ask("GET", "/api/v1/sessions/on/line", key=api.administrator)).json()
    assert found["subscriptions"] == [{"filter": "a/#", "qos": 1, "identifier": 3}]
    assert (found["queued"], found["inFlight"], found["connected"]) == (1, 2, True)
    error(await api.ask("GET", "/api/v1/sessions/off", key=api.administrator), 404)


async def test_connections_are_closed(api):
    assert (await api.ask("DELETE", "/api/v1/connections/on/line", key=api.administrator)).json()["closed"]
    error(await api.ask("DELETE", "/api/v1/connections/off", key=api.administrator), 404)


async def test_what_can_t_be_said_for_all_nodes_is_not_said(api):
    api.services.unanswered = Unanswered("there is no answer of: two")
    for method, path in (("GET", "sessions"), ("DELETE", "connections")):
        found = error(await api.ask(method, f"/api/v1/{path}/off", key=api.administrator), 503)
        assert found == {"code": "unavailable", "message": "there is no answer of: two"}


async def test_a_revoked_key_names_the_nodes_that_did_not_answer(api):
    api.services.silent = ["two"]
    key = (await api.ask("POST", "/api/v1/keys", key=api.administrator, json={})).json()
    revoked = await api.ask("DELETE", f"/api/v1/keys/{key['accessKeyId']}", key=api.administrator)
    assert (revoked.json()["connectionsClosed"], revoked.json()["silent"]) == (3, ["two"])


async def test_keys_are_made_listed_and_revoked(api):
    made = await api.ask("POST", "/api/v1/keys", key=api.administrator, json={})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    assert set(key) == {"accessKeyId", "accessKeySecret", "instanceId"}
    login = {"auth": (key["accessKeyId"], key["accessKeySecret"])}
    assert (await api.ask("GET", "/api/v1/node", **login)).status_code == 200

    listed = (await api.ask("GET", "/api/v1/keys", key=api.administrator)).text
    assert key["accessKeyId"] in listed
    assert key["accessKeySecret"] not in listed

    revoked = await api.ask("DELETE", f"/api/v1/keys/{key['accessKeyId']}", key=api.administrator)
    assert revoked.json() == {"accessKeyId": key["accessKeyId"], "revoked": True, "connectionsClosed": 3}
    assert api.services.closed == [key["accessKeyId"]]
    error(await api.ask("GET", "/api/v1/node", **login), 401)
    error(await api.ask("DELETE", f"/api/v1/keys/{key['accessKeyId']}", key=api.administrator), 404)


async def test_a_credential_does_not_revoke_itself(api):
    assert error(await api.ask("DELETE", f"/api/v1/keys/{api.administrator.id}", key=api.administrator), 409)["code"] == "own_credential"


async def publish(api, **body):
    return await api.ask("POST", "/api/v1/publish", key=api.device, json=body)


async def test_ready_says_which_roles_nobody_has(api):
    api.services.missing = ["no living node has the role bridge: rules stand still"]
    response = await api.ask("GET", "/readyz")
    assert response.status_code == 200
    assert response.json() == {"ready": True, "reasons": [], "missing": ["no living node has the role bridge: rules stand still"]}


async def test_a_node_without_the_role_api_answers_about_itself_alone(api):
    api.services.has_api = False
    api.app = create_api(api.services)
    for path in ("/metrics", "/healthz", "/readyz"):
        assert (await api.ask("GET", path)).status_code == 200
    others = [("POST", "/"), ("GET", "/docs"), ("GET", "/signature"), ("PUT", "/metrics")]
    for method, path in [*((method, path) for method, path, _ in ROUTES), *others]:
        response = await api.ask(method, path, key=api.administrator)
        assert response.status_code == 404, path
        assert response.json()["error"] == {
            "code": "no_api",
            "message": "this node lacks the role api (node.roles): ask one that has it; here are /metrics, /healthz and /readyz alone",
        }


async def test_publish_answers_when_durable_with_the_message_id(api):
    response = await publish(api, topic="a/b", payload="grüß", retain=True)
    assert response.json() == {"messageId": bytes(range(16)).hex()}
    [(topic, payload, qos, retain, properties, principal)] = api.services.published
    assert (topic, payload.decode(), qos, retain, properties, principal.name) == ("a/b", "grüß", 1, True, Properties(), api.device.id)


async def test_publish_carries_binary_and_properties(api):
    properties = {
        "payloadFormat": 0,
        "messageExpiry": 60,
        "contentType": "image/png",
        "responseTopic": "answers/1",
        "correlationData": base64.b64encode(b"\x00\x01").decode(),
        "userProperties": [["a", "1"], ["a", "2"]],
    }
    response = await publish(api, topic="a", payloadBase64=base64.b64encode(b"\xff\x00").decode(), qos=2, properties=properties)
    assert response.status_code == 200
    [(_, payload, qos, _, found, _)] = api.services.published
    assert (payload, qos) == (b"\xff\x00", 2)
    assert found == Properties(
        payload_format_indicator=0,
        message_expiry_interval=60,
        content_type="image/png",
        response_topic="answers/1",
        correlation_data=b"\x00\x01",
        user_property=(("a", "1"), ("a", "2")),
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "topic"),
        ({"topic": 5}, "topic"),
        ({"topic": ""}, "topic"),
        ({"topic": "a/#"}, "topic"),
        ({"topic": "a/+/b"}, "topic"),
        ({"topic": "a\x00"}, "topic"),
        ({"topic": "a" * 1025}, "topic"),
        ({"topic": "a/" * 128}, "topic"),
        ({"topic": "a", "qos": 3}, "qos"),
        ({"topic": "a", "qos": True}, "qos"),
        ({"topic": "a", "qos": "1"}, "qos"),
        ({"topic": "a", "retain": 1}, "retain"),
        ({"topic": "a", "payload": {}}, "payload"),
        ({"topic": "a", "payload": "x", "payloadBase64": "eA=="}, "payload"),
        ({"topic": "a", "payloadBase64": "!"}, "payloadBase64"),
        ({"topic": "a", "payloadBase64": "ä"}, "payloadBase64"),
        ({"topic": "a", "qoss": 1}, "qoss"),
        ({"topic": "a", "properties": {"responseTopic": "a/#"}}, "properties.responseTopic"),
        ({"topic": "a", "properties": {"responseTopic": ""}}, "properties.responseTopic"),
        ({"topic": "a", "properties": {"contentType": "x" * 65536}}, "properties.contentType"),
        ({"topic": "a", "properties": {"contentType": "x" * 9000}}, "properties"),
        ({"topic": "a", "properties": {"correlationData": "?"}}, "properties.correlationData"),
        ({"topic": "a", "properties": {"messageExpiry": -1}}, "properties.messageExpiry"),
        ({"topic": "a", "properties": {"userProperties": [["a"]]}}, "properties.userProperties.0"),
        ({"topic": "a", "properties": {"userProperties": [["a", "\x00"]]}}, "properties.userProperties"),
        ({"topic": "a", "properties": {"userProperties": [["a", "b"]] * 65}}, "properties.userProperties"),
        ({"topic": "a", "payloadBase64": "/w==", "properties": {"payloadFormat": 1}}, "properties.payloadFormat"),
        ({"topic": "a", "properties": {"payloadFormat": 2}}, "properties.payloadFormat"),
    ],
)
async def test_a_fault_names_its_field(api, body, field):
    assert error(await publish(api, **body), 400)["field"] == field
    assert api.services.published == []


@pytest.mark.parametrize("field", ["topic", "payload"])
async def test_half_a_surrogate_is_no_text(api, field):
    content = json.dumps({"topic": "a", "payload": "b", field: "\ud800"})
    response = await api.ask("POST", "/api/v1/publish", key=api.device, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("content", "kind"), [(b"{", "application/json"), (b"\xff", "application/json"), (b"[" * 100_000, "application/json"), (b"{}", "text/plain")]
)
async def test_what_is_not_json_is_refused(api, content, kind):
    response = await api.ask("POST", "/api/v1/publish", key=api.device, content=content, headers={"Content-Type": kind})
    assert error(response, 400)["code"] in ("invalid", "refused")


async def test_a_payload_over_the_limit_is_413(api):
    api.services.limits = Limits(packet=10)
    assert error(await publish(api, topic="a", payload="x" * 11), 413)["field"] == "payload"


async def test_a_body_over_the_limit_is_413_also_without_a_length(api):
    async def chunks():
        for _ in range(20):
            yield b"x" * (guard.MAX_BODY // 10)

    for content in (b"x" * (guard.MAX_BODY + 1), chunks()):
        response = await api.ask("POST", "/api/v1/publish", key=api.device, content=content, headers={"Content-Type": "application/json"})
        assert error(response, 413)["code"] == "too_large"


async def test_a_body_that_comes_too_slowly_is_408(api, monkeypatch):
    monkeypatch.setattr(guard, "BODY_TIMEOUT", 0.01)
    answers = []

    async def never():
        await asyncio.Event().wait()

    async def send(message):
        answers.append(message)

    basic = base64.b64encode(f"{api.device.id}:{api.device.secret.reveal()}".encode())
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/publish",
        "raw_path": b"/api/v1/publish",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"authorization", b"Basic " + basic)],
        "client": ("127.0.0.1", 1),
        "server": ("gateway", 80),
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
    }
    await api.app(scope, never, send)
    assert answers[0]["status"] == 408


async def test_publish_obeys_access_rules(api):
    services = FakeServices(api.services.keyring, [AccessRule("*", "publish", "secret/#", "deny")])
    api.services, api.app = services, create_api(services)
    assert error(await publish(api, topic="secret/x"), 403)["field"] == "topic"
    assert error(await publish(api, topic="$SYS/broker/x"), 403)["field"] == "topic"
    assert (await publish(api, topic="open/x")).status_code == 200


async def test_a_log_that_fails_is_503_without_internals(api):
    api.services.is_failing = True
    response = await publish(api, topic="a")
    assert error(response, 503)["code"] == "unavailable"
    assert "/secret/path" not in response.text


async def test_a_fault_of_ours_is_500_without_internals(api, monkeypatch):
    def broken():
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(api.services, "node", broken)
    response = await api.ask("GET", "/api/v1/node", key=api.device, raise_errors=False)
    assert error(response, 500) == {"code": "internal", "message": "internal error; the log of the gateway says more"}


async def test_what_is_wrong_with_a_signature_is_said_to_managers(api):
    from gateway.auth.login import sign

    user_name = f"Signature|{api.device.id}|mqtt-sw-test"
    password = sign(api.device.secret.reveal().encode(), "dev").decode()

    async def check(**fields):
        body = {"clientId": "dev", "userName": user_name, "password": password} | fields
        return (await api.ask("POST", "/api/v1/signature", key=api.manager, json=body)).json()

    assert await check() == {"right": True, "problem": ""}
    assert "another client id" in (await check(clientId="other"))["problem"]
    assert "no active access key" in (await check(userName="Signature|none|mqtt-sw-test"))["problem"]
    assert "instance id" in (await check(userName=f"Signature|{api.device.id}|other"))["problem"]
    assert "mode word" in (await check(userName=f"signature|{api.device.id}|mqtt-sw-test"))["problem"]
    assert "not base64" in (await check(password="!"))["problem"]
    assert "not 3" in (await check(userName="dev"))["problem"]
    fresh = await api.services.keyring.rotate(api.device.id, 2**42, 2**42)
    assert (await check())["right"]
    assert (await check(password=sign(fresh.secret.reveal().encode(), "dev").decode()))["right"]
    assert api.device.secret.reveal() not in (await api.ask("POST", "/api/v1/signature", key=api.manager, json={})).text
