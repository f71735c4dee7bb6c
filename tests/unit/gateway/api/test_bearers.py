"""Bearer keys: what each scope may do on every route there is, that the documentation says the same, and how keys come and go."""

from __future__ import annotations

import re

import httpx
import pytest

from gateway.auth.bearers import MAX_VALID, Bearers
from tests.support.testbed import Testbed
from tests.unit.gateway.api.test_routes import error
from tests.unit.gateway.openapi.test_endpoint import Site

ORDER = ["read", "write", "admin"]


class Owner:
    """Asks with a bearer key of a scope."""

    def __init__(self, api):
        self.api = api
        self.keys = {}

    async def make(self, scope, **fields):
        made = await self.api.ask("POST", "/api/v1/bearer-keys", key=self.api.administrator, json={"name": scope, "scope": scope, **fields})
        assert made.status_code == 201, made.text
        self.keys[scope] = made.json()
        return made.json()

    async def ask(self, scope, method, path, **request):
        headers = {"Authorization": f"Bearer {self.keys[scope]['bearerKey']}"}
        return await self.api.ask(method, path, headers=headers, **request)


@pytest.fixture
async def owner(api):
    owner = Owner(api)
    for scope in ORDER:
        await owner.make(scope)
    return owner


async def test_every_route_takes_the_scope_that_it_documents_and_no_less(owner):
    paths = owner.api.app.openapi()["paths"]
    seen = set()
    for path, methods in paths.items():
        for method, operation in methods.items():
            if not path.startswith("/api/v1"):
                assert "security" not in operation
                continue
            needed = next(s["bearerKey"][0] for s in operation["security"] if "bearerKey" in s)
            seen.add(needed)
            for scope in ORDER:
                if "rules" in path and ORDER.index(scope) >= ORDER.index(needed):
                    continue  # there are none in this fake; test_rules_take_bearer_keys
                answer = await owner.ask(scope, method.upper(), re.sub(r"\{\w+\}", "none", path), json={})
                is_refused = answer.status_code == 403
                assert is_refused is (ORDER.index(scope) < ORDER.index(needed)), (scope, method, path, answer.text)
                assert answer.status_code != 401
    assert seen == set(ORDER)


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/api/v1/node", "read"),
        ("GET", "/api/v1/policies", "read"),
        ("POST", "/api/v1/publish", "write"),
        ("DELETE", "/api/v1/connections/{client_id}", "write"),
        ("PUT", "/api/v1/policies", "admin"),
        ("GET", "/api/v1/keys", "admin"),
        ("POST", "/api/v1/keys/{key_id}/rotate", "admin"),
        ("GET", "/api/v1/bearer-keys", "admin"),
    ],
)
def test_scopes(api, method, path, needed):
    assert api.app.openapi()["paths"][path][method.lower()]["security"][1] == {"bearerKey": [needed]}


def test_rules_take_bearer_keys(bed: Testbed):
    site = Site(bed)
    _, secret = bed.loop.finish(bed.node.registers.bearers.create("x", "write", 0, 0))

    async def ask():
        transport = httpx.ASGITransport(site.app, client=("127.0.0.1", 9))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.get("/api/v1/rules", headers={"Authorization": f"Bearer {secret.reveal()}"})

    assert bed.loop.finish(ask()).json() == {"rules": []}
    assert bed.loop.finish(Bearers(bed.store).load()) is None
    bed.crash()
    assert bed.node.registers.bearers.find(secret.reveal(), 0) is not None


@pytest.mark.parametrize("change", [lambda t: t[:-1] + "g", lambda t: t[4:], lambda t: "", lambda t: t + "x", lambda t: "é"])
async def test_what_is_no_key_gets_401(owner, change):
    wrong = change(owner.keys["admin"]["bearerKey"]).encode()
    error(await owner.api.ask("GET", "/api/v1/node", headers={b"Authorization": b"Bearer " + wrong}), 401)


async def test_a_key_ends_when_it_is_revoked_or_past_its_time(owner, monkeypatch):
    key_id = owner.keys["read"]["id"]
    assert (await owner.ask("read", "GET", "/api/v1/node")).status_code == 200
    assert (await owner.ask("admin", "DELETE", f"/api/v1/bearer-keys/{key_id}")).json() == {"id": key_id, "revoked": True}
    error(await owner.ask("read", "GET", "/api/v1/node"), 401)
    error(await owner.ask("admin", "DELETE", f"/api/v1/bearer-keys/{key_id}"), 404)
    made = await owner.make("read", validSeconds=60)
    assert made["expires"] - made["created"] == 60_000
    bearers = owner.api.services.bearers
    assert bearers.find(made["bearerKey"], made["expires"] - 1) is not None
    assert bearers.find(made["bearerKey"], made["expires"]) is None


async def test_a_key_can_not_revoke_itself(owner):
    error(await owner.ask("admin", "DELETE", f"/api/v1/bearer-keys/{owner.keys['admin']['id']}"), 409)


async def test_secrets_are_shown_once_and_not_stored(owner):
    listed = await owner.ask("admin", "GET", "/api/v1/bearer-keys")
    assert {key["scope"] for key in listed.json()["bearerKeys"]} == set(ORDER)
    stored = repr(owner.api.services.bearers._shelf.items())
    for made in owner.keys.values():
        secret = made["bearerKey"].rpartition("_")[2]
        assert secret not in listed.text
        assert secret not in stored


async def test_changes_are_in_the_log_without_the_secret(owner, caplog):
    caplog.set_level("INFO", "gateway.api")
    made = await owner.make("read")
    await owner.ask("admin", "DELETE", f"/api/v1/bearer-keys/{made['id']}")
    await owner.ask("write", "GET", "/api/v1/keys")
    assert [line.split()[0] for line in caplog.messages] == ["bearer-key-created", "bearer-key-revoked", "api-scope-refused"]
    assert made["bearerKey"].rpartition("_")[2] not in caplog.text


@pytest.mark.parametrize(
    ("body", "field"),
    [({"name": ""}, "name"), ({"name": "x" * 65}, "name"), ({"name": "a\nb"}, "name"), ({"name": "x", "scope": "root"}, "scope"),
     ({"name": "x", "validSeconds": -1}, "validSeconds"), ({"name": "x", "validSeconds": MAX_VALID + 1}, "validSeconds")],
)  # fmt: skip
async def test_what_is_refused_names_its_field(api, body, field):
    assert error(await api.ask("POST", "/api/v1/bearer-keys", key=api.administrator, json=body), 400)["field"] == field
    assert api.services.bearers.all() == []


async def test_another_machine_needs_tls(owner):
    error(await owner.ask("read", "GET", "/api/v1/node", peer="192.0.2.9"), 403)


async def test_access_rules_say_what_a_bearer_key_publishes(owner):
    from schemas.identities import AccessRule

    principal = "bearer:" + owner.keys["write"]["id"]
    assert (await owner.ask("write", "POST", "/api/v1/publish", json={"topic": "a"})).status_code == 200
    error(await owner.ask("write", "POST", "/api/v1/publish", json={"topic": "$SYS/a"}), 403)
    await owner.api.services.policies.put(AccessRule(principal, "publish", "b"))
    error(await owner.ask("write", "POST", "/api/v1/publish", json={"topic": "a"}), 403)


async def test_the_page_is_whole_and_loads_nothing(owner):
    page = await owner.ask("read", "GET", "/docs")
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    for path in owner.api.app.openapi()["paths"]:
        assert path in page.text
    schema = (await owner.ask("read", "GET", "/openapi.json")).json()
    assert schema["components"]["securitySchemes"]["bearerKey"]["scheme"] == "bearer"
