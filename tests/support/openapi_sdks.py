"""The official SDKs of the model product as callers of actions by their snake-case names, all alike to whoever calls.

Actions that an SDK has no method for are made by its generic call, as its users make them; answers to those are an ``Answer``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from alibabacloud_onsmqtt20200420 import models
from alibabacloud_onsmqtt20200420.client import Client
from alibabacloud_openapi_util.client import Client as Flatten
from alibabacloud_tea_openapi.models import Config, OpenApiRequest, Params
from alibabacloud_tea_util.models import RuntimeOptions
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.request import CommonRequest

RUNTIME: Final = RuntimeOptions(autoretry=False, read_timeout=10_000, connect_timeout=5_000)
VERSION: Final = "2020-04-20"
VERSIONS: Final = {"BatchSendMessages": "2019-12-11"}
"""Of actions that aren't of ``VERSION``."""

Call = Callable[..., Any]
"""An action's name and its fields, in snake case; lists and mappings as they are."""


def pascal(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


class Answer:
    """Fields of an answer in JSON by their snake-case names, as the models of the new SDK have them."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        for key, value in self._fields.items():
            if key.lower() == name.replace("_", ""):
                return _shown(value)
        raise AttributeError(name)

    def to_map(self) -> dict[str, Any]:
        return self._fields


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(entry) for entry in value]
    return Answer(value) if isinstance(value, dict) else value


def _flat(fields: dict[str, Any]) -> dict[str, str]:
    """As the SDKs write lists and what is in them."""
    plain = {pascal(name): str(value).lower() if isinstance(value, bool) else value for name, value in fields.items()}
    return dict(Flatten.query(plain))


def tea(http: str, key: str, secret: str, algorithm: str | None = None) -> Call:
    """The new SDK; ``algorithm`` "v2" is what it calls Signature V1."""
    config = Config(access_key_id=key, access_key_secret=secret, endpoint=http, protocol="HTTP")
    config.signature_algorithm = algorithm
    client = Client(config)

    def call(action: str, **fields: Any) -> Any:
        name = pascal(action)
        if method := getattr(client, f"{action}_with_options", None):
            return method(getattr(models, f"{name}Request")(**fields), RUNTIME).body
        params = Params(
            action=name, version=VERSIONS.get(name, VERSION), protocol="HTTP", pathname="/", method="POST", auth_type="AK", style="RPC",
            req_body_type="formData", body_type="json",
        )  # fmt: skip
        return Answer(client.call_api(params, OpenApiRequest(query=_flat(fields)), RUNTIME)["body"])

    return call


def tea_v1(http: str, key: str, secret: str) -> Call:
    return tea(http, key, secret, "v2")


def acted(client: AcsClient, request: Any) -> Any:
    """What the classic SDK has read. Its connection is closed: after an error it would stay with the traceback."""
    try:
        return json.loads(client.do_action_with_exception(request))
    finally:
        client.session.close()


def classic(http: str, key: str, secret: str) -> Call:
    """The SDK before it, whose generic call takes any action."""
    client = AcsClient(key, secret, "mq-internet-access", auto_retry=False)

    def call(action: str, **fields: Any) -> Any:
        name = pascal(action)
        request = CommonRequest(domain=http, version=VERSIONS.get(name, VERSION), action_name=name)
        request.set_method("POST")
        for field, value in _flat(fields).items():
            request.add_query_param(field, value)
        return Answer(acted(client, request))

    return call


SDKS: Final = (tea, tea_v1, classic)
