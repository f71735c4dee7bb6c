"""A gateway's HTTP side without a gateway and without sockets."""

import httpx
import pytest

from gateway.api.routes import create_api
from tests.unit.gateway.api.services import FakeServices
from tests.unit.gateway.auth.keystore import new_keyring


class Api:
    """The application, and one key of each kind."""

    def __init__(self, services, device, manager, administrator):
        self.services, self.device, self.manager, self.administrator = services, device, manager, administrator
        self.app = create_api(services)

    async def ask(self, method, path, *, key=None, peer="127.0.0.1", raise_errors=True, **request):
        if key is not None:
            request["auth"] = (key.id, key.secret.reveal())
        transport = httpx.ASGITransport(self.app, client=(peer, 999), raise_app_exceptions=raise_errors)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, **request)


@pytest.fixture
async def api(tmp_path):
    keyring = await new_keyring(tmp_path, instance_id="mqtt-sw-test")
    keys = [await keyring.create(role, created) for created, role in enumerate(("device", "manager", "administrator"), start=1)]
    return Api(FakeServices(keyring), *keys)
