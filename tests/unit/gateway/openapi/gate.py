"""The OpenAPI of a gateway in memory, asked without an HTTP client: some thousand requests a second, as they are on the wire."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from fastapi import FastAPI

from gateway.api.routes import create_api
from gateway.node import Node
from gateway.openapi.endpoint import open_api_routes
from gateway.services import Services

Made = tuple[str, str, dict[str, str], bytes]
"""Method, target, headers and body, as requests.py makes them."""

AHEAD_OF_BELIEF = {"IncompleteSignature", "SignatureDoesNotMatch", "InvalidAccessKeyId.NotFound", "InvalidTimeStamp.Format"}
"""Codes of requests of which nothing was believed. Any other says that a signature was taken for right."""


class Reply(NamedTuple):
    status: int
    body: dict[str, Any]

    @property
    def code(self) -> str:
        """Empty for a success."""
        return "" if self.status == 200 else str(self.body["Code"])


def app_of(node: Node, services: Services) -> FastAPI:
    return create_api(services, open_api_routes(node, services))


async def ask(app: FastAPI, made: Made, peer: str = "127.0.0.1") -> Reply:
    method, target, headers, body = made
    path, _, query = target.partition("?")
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": query.encode(), "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": (peer, 9), "server": ("gateway", 80),
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(sent[0]["status"], json.loads(content) if content.startswith(b"{") else {"Code": "", "text": content.decode()})
