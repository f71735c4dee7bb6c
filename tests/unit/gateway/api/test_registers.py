"""Groups, parent topics, rules and rotation over HTTP: made, listed, removed; every fault names its field and changes nothing."""

import pytest

from schemas.identities import Principal


def error(response, status):
    assert response.status_code == status, response.text
    return response.json()["error"]


@pytest.mark.parametrize(("path", "field", "name"), [("groups", "groupId", "GID_one"), ("topics", "topic", "plant")])
async def test_names_are_made_listed_and_removed(api, path, field, name):
    made = await api.ask("POST", f"/api/v1/{path}", key=api.manager, json={field: name})
    assert (made.status_code, made.json()[field]) == (201, name)
    assert error(await api.ask("POST", f"/api/v1/{path}", key=api.manager, json={field: name}), 409)["field"] == field
    assert [one[field] for one in (await api.ask("GET", f"/api/v1/{path}", key=api.manager)).json()[path]] == [name]
    assert (await api.ask("DELETE", f"/api/v1/{path}/{name}", key=api.manager)).json() == {field: name, "deleted": True}
    error(await api.ask("DELETE", f"/api/v1/{path}/{name}", key=api.manager), 404)
    assert (await api.ask("GET", f"/api/v1/{path}", key=api.manager)).json() == {path: []}


@pytest.mark.parametrize(("path", "field"), [("groups", "groupId"), ("topics", "topic")])
@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "ü", 5, None])
async def test_bad_names_are_named(api, path, field, name):
    found = error(await api.ask("POST", f"/api/v1/{path}", key=api.manager, json={field: name}), 400)
    assert found["field"] == field
    assert (await api.ask("GET", f"/api/v1/{path}", key=api.manager)).json() == {path: []}


@pytest.mark.parametrize(("path", "field", "prefix"), [("groups", "groupId", "GID_"), ("topics", "topic", "t")])
async def test_a_limit_is_a_conflict(api, path, field, prefix):
    for number in range(3):
        await api.ask("POST", f"/api/v1/{path}", key=api.manager, json={field: f"{prefix}abc{number}"})
    assert error(await api.ask("POST", f"/api/v1/{path}", key=api.manager, json={field: f"{prefix}abc9"}), 409)["code"] == "limit"


async def test_a_rule_is_put_listed_and_removed_and_in_force_at_once(api):
    access, principal = api.services.access, Principal(api.device.id, client="c1")
    rule = {"principal": api.device.id, "action": "publish", "filter": "own/${client}", "effect": "deny"}
    assert access.may(principal, "publish", "own/c1")
    assert (await api.ask("PUT", "/api/v1/policies", key=api.manager, json=rule)).json() == rule
    assert not access.may(principal, "publish", "own/c1")
    assert access.may(principal, "publish", "own/c2")
    await api.ask("PUT", "/api/v1/policies", key=api.manager, json=rule | {"principal": "*"})
    listed = (await api.ask("GET", "/api/v1/policies", key=api.manager)).json()["policies"]
    assert [one["principal"] for one in listed] == ["*", api.device.id]
    of_one = (await api.ask("GET", f"/api/v1/policies?of={api.device.id}", key=api.manager)).json()
    assert of_one == {"policies": [rule]}
    assert (await api.ask("GET", "/api/v1/policies?start=1&limit=1", key=api.manager)).json() == of_one
    for one in listed:
        assert (await api.ask("DELETE", "/api/v1/policies", key=api.manager, json=one)).status_code == 200
        error(await api.ask("DELETE", "/api/v1/policies", key=api.manager, json=one), 404)
    assert access.may(principal, "publish", "own/c1")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"principal": ""}, "principal"),
        ({"action": "write"}, "action"),
        ({"effect": "permit"}, "effect"),
        ({"filter": "a/#/b"}, "filter"),
        ({"filter": "a/${nobody}"}, "filter"),
        ({"filter": "a/x${client}"}, "filter"),
        ({"filter": 5}, "filter"),
        ({"more": 1}, "more"),
    ],
)
async def test_a_bad_rule_names_its_field(api, change, field):
    rule = {"principal": "p", "action": "publish", "filter": "a", "effect": "allow"} | change
    assert error(await api.ask("PUT", "/api/v1/policies", key=api.manager, json=rule), 400)["field"] == field
    assert (await api.ask("GET", "/api/v1/policies", key=api.manager)).json() == {"policies": []}


@pytest.mark.parametrize("query", ["start=-1", "limit=0", "limit=1001", "limit=x"])
async def test_a_page_is_bounded(api, query):
    error(await api.ask("GET", f"/api/v1/policies?{query}", key=api.manager), 400)


async def test_a_key_is_rotated_and_the_old_secret_ends_when_asked(api):
    made = await api.ask("POST", f"/api/v1/keys/{api.device.id}/rotate", key=api.administrator, json={"validSeconds": 0})
    assert made.json()["accessKeyId"] == api.device.id
    error(await api.ask("GET", "/api/v1/node", key=api.device), 401)
    await api.ask("POST", f"/api/v1/keys/{api.manager.id}/rotate", key=api.administrator, json={})
    assert (await api.ask("GET", "/api/v1/node", key=api.manager)).status_code == 200
    error(await api.ask("POST", "/api/v1/keys/none/rotate", key=api.administrator, json={}), 404)
    error(await api.ask("POST", f"/api/v1/keys/{api.administrator.id}/rotate", key=api.administrator, json={}), 409)
    assert error(await api.ask("POST", f"/api/v1/keys/{api.manager.id}/rotate", key=api.administrator, json={"validSeconds": -1}), 400)


async def test_a_key_has_the_role_it_was_made_for(api):
    for role in ("device", "manager"):
        made = (await api.ask("POST", "/api/v1/keys", key=api.administrator, json={"role": role})).json()
        assert api.services.keyring.role(made["accessKeyId"]) == role
    assert error(await api.ask("POST", "/api/v1/keys", key=api.administrator, json={"role": "administrator"}), 400)["field"] == "role"
