"""Authorities and certificates over HTTP: registered, listed, changed, deleted; every fault names its field and changes nothing."""

import time

import pytest

from tests.support.certificates import Authority
from tests.unit.gateway.api.test_registers import error

NOW = time.time_ns() // 1_000_000


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


async def ask(api, method, path, status=200, **request):
    response = await api.ask(method, f"/api/v1/{path}", key=api.manager, **request)
    assert response.status_code == status, response.text
    return response.json()


async def register(api, authority, status=201, **change):
    code = (await ask(api, "GET", "registration-code"))["registrationCode"]
    body = {"name": "factory", "ca": authority.pem, "verification": authority.verification(code)} | change
    return await ask(api, "POST", "authorities", status, json=body)


async def test_an_authority_is_registered_listed_changed_and_deleted(api, authority):
    made = await register(api, authority)
    assert (made["serial"], made["name"], made["active"], made["ca"]) == (authority.serial, "factory", True, authority.pem)
    assert await ask(api, "GET", "authorities") == {"authorities": [made], "total": 1}
    assert await ask(api, "GET", "authorities?start=1&limit=1") == {"authorities": [], "total": 1}
    path = f"authorities/{authority.serial.upper()}"
    assert await ask(api, "GET", path) == made
    assert await ask(api, "POST", f"{path}/deactivate") == {"serial": authority.serial, "deactivated": True}
    assert (await ask(api, "GET", path))["active"] is False
    assert await ask(api, "POST", f"{path}/activate") == {"serial": authority.serial, "activated": True}
    assert (await ask(api, "GET", path))["active"] is True
    assert await ask(api, "DELETE", path) == {"serial": authority.serial, "deleted": True}
    for method, rest in (("GET", ""), ("POST", "/activate"), ("POST", "/deactivate"), ("DELETE", "")):
        await ask(api, method, path + rest, 404)


async def test_a_certificate_is_listed_changed_and_deleted(api, authority):
    await register(api, authority)
    certificates, pair = api.services.certificates, authority.issue("d1", client=True)
    await certificates.admit(certificates.find(pair.der, NOW), NOW)
    listed = await ask(api, "GET", f"certificates?of={authority.serial.upper()}")
    [shown] = listed["certificates"]
    assert listed["total"] == 1
    assert (shown["authority"], shown["name"], shown["certificate"]) == (authority.serial, "d1", pair.certificate.read_text())
    assert (await ask(api, "GET", "certificates?of=ff"))["total"] == (await ask(api, "GET", "certificates?of=none"))["total"] == 0
    assert (await ask(api, "GET", "certificates"))["total"] == 1
    named = {"authority": authority.serial, "serial": shown["serial"]}
    path = "certificates/{authority}/{serial}".format(**named)
    assert await ask(api, "GET", path) == shown
    assert await ask(api, "POST", f"{path}/deactivate") == named | {"deactivated": True}
    assert certificates.find(pair.der, NOW) == "inactive certificate"
    assert await ask(api, "POST", f"{path}/activate") == named | {"activated": True}
    assert await ask(api, "DELETE", path) == named | {"deleted": True}
    for method, rest in (("GET", ""), ("POST", "/deactivate"), ("DELETE", "")):
        await ask(api, method, path + rest, 404)
    await ask(api, "POST", "certificates/x/y/activate", 404)


@pytest.mark.parametrize(
    ("change", "field", "status"),
    [
        ({"name": ""}, "name", 400),
        ({"name": "a/b"}, "name", 400),
        ({"ca": "x"}, "ca", 400),
        ({"verification": "x"}, "verification", 400),
        ({"ca": 5}, "ca", 400),
        ({"more": 1}, "more", 400),
    ],
)
async def test_what_cannot_be_registered_names_its_field(api, authority, change, field, status):
    assert (await register(api, authority, status, **change))["error"]["field"] == field
    assert (await ask(api, "GET", "authorities"))["total"] == 0


async def test_an_authority_is_registered_once(api, authority):
    await register(api, authority)
    assert (await register(api, authority, 409))["error"]["code"] == "exists"


async def test_devices_keys_do_not_manage(api, authority):
    for method, path in (("GET", "registration-code"), ("GET", "authorities"), ("POST", "authorities/1/activate"), ("GET", "certificates")):
        error(await api.ask(method, f"/api/v1/{path}", key=api.device), 403)
        error(await api.ask(method, f"/api/v1/{path}"), 401)


@pytest.mark.parametrize("query", ["start=-1", "limit=0", "limit=101", "limit=x"])
async def test_a_page_is_bounded(api, query):
    await ask(api, "GET", f"authorities?{query}", 400)
    await ask(api, "GET", f"certificates?{query}", 400)
