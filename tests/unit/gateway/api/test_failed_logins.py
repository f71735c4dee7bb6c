"""Guessing keys of the HTTP API: an address and a key have so many failures a minute, then nothing is looked at for one; others notice nothing."""

from __future__ import annotations

import pytest

from gateway.api.routes import create_api
from gateway.auth.bearers import key_id_of
from schemas.limits import Limits
from tests.unit.gateway.api.services import FakeServices
from tests.unit.gateway.api.test_routes import error

OTHER, GUESSER = "192.0.2.1", "192.0.2.66"
NODE = "/api/v1/node"


@pytest.fixture
async def api(api):
    """With room for 3 failures from an address and 5 with a key, in clear text too."""
    limits = Limits(login_failures_address=3, login_failures_key=5)
    api.services = FakeServices(api.services.keyring, limits=limits, allow_plaintext_login=True)
    api.app = create_api(api.services)
    return api


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def make_bearer(api):
    made = await api.ask("POST", "/api/v1/bearer-keys", key=api.administrator, json={"name": "x", "scope": "read"})
    return made.json()["bearerKey"]


async def test_guessed_bearer_keys_use_up_their_address(api, caplog):
    right = await make_bearer(api)
    for number in range(3):
        error(await api.ask("GET", NODE, peer=GUESSER, headers=bearer(f"swb_{number:016x}_{'0' * 64}")), 401)
    for headers in (bearer("swb_x_y"), bearer(right)):
        refused = await api.ask("GET", NODE, peer=GUESSER, headers=headers)
        assert error(refused, 429)["code"] == "too_many_failed_logins"
        assert refused.headers["retry-after"] == "60"
    assert error(await api.ask("GET", NODE, peer=GUESSER, key=api.device), 429)
    events = [line.split()[0] for line in caplog.messages if GUESSER in line]
    assert events == ["api-login-refused"] * 2 + ["login-failures-spent", "api-login-refused"]
    assert api.services.refused == {"login_failures": 3}
    assert (await api.ask("GET", NODE, peer=OTHER, headers=bearer(right))).status_code == 200
    api.services.now += 60
    assert (await api.ask("GET", NODE, peer=GUESSER, headers=bearer(right))).status_code == 200


async def test_a_key_that_is_guessed_from_everywhere_waits(api):
    right = await make_bearer(api)
    for number in range(5):
        error(await api.ask("GET", NODE, peer=f"192.0.2.{number + 2}", headers=bearer(right[:-1] + "g")), 401)
    error(await api.ask("GET", NODE, peer=OTHER, headers=bearer(right)), 429)
    assert (await api.ask("GET", NODE, peer=OTHER, headers=bearer(await make_bearer(api)))).status_code == 200


async def test_wrong_secrets_of_access_keys_count_and_loopback_has_no_budget_of_its_own(api):
    for number in range(5):
        error(await api.ask("GET", NODE, auth=(api.device.id, f"guess{number}")), 401)
    error(await api.ask("GET", NODE, key=api.device), 429)
    assert (await api.ask("GET", NODE, key=api.manager)).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic !"}, {"Authorization": "Digest x"}])
async def test_what_shows_no_key_is_no_guess(api, headers):
    for _ in range(4):
        error(await api.ask("GET", NODE, peer=GUESSER, headers=headers), 401)
    assert (await api.ask("GET", NODE, peer=GUESSER, key=api.device)).status_code == 200


async def test_a_scope_that_is_not_enough_is_no_failed_login(api):
    token = await make_bearer(api)
    for _ in range(4):
        error(await api.ask("GET", "/api/v1/keys", peer=GUESSER, headers=bearer(token)), 403)
    assert (await api.ask("GET", NODE, peer=GUESSER, headers=bearer(token))).status_code == 200


@pytest.mark.parametrize(("token", "key_id"), [("swb_ab_cd", "ab"), ("swb_", ""), ("ab_cd", ""), ("", ""), ("swb_ab", "ab")])
def test_the_id_that_a_key_claims(token, key_id):
    assert key_id_of(token) == key_id
