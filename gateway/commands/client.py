"""Calls of the HTTP API. Standard library only, and no proxies: the gateway is a neighbour."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.commands.endpoint import Endpoint
from gateway.commands.errors import CommandError

TIMEOUT: Final = 70.0
"""Seconds: longer than a publish may wait for the log (limits.log_wait)."""

MAX_ANSWER: Final = 64 * 1024 * 1024

_CONNECTIONS: Final[dict[str, Callable[..., http.client.HTTPConnection]]] = {
    "http": http.client.HTTPConnection,
    "https": http.client.HTTPSConnection,
}


def call(endpoint: Endpoint, method: str, path: str, body: object = None) -> Any:
    """The answer's JSON; CommandError where there is none or it is an error."""
    parts = urlsplit(endpoint.url)
    make = _CONNECTIONS.get(parts.scheme)
    if make is None or not parts.hostname:
        raise CommandError(f"{endpoint.url!r} is not a URL like http://127.0.0.1:8080")
    basic = base64.b64encode(f"{endpoint.access_key}:{endpoint.secret}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
    try:
        connection = make(parts.hostname, parts.port, timeout=TIMEOUT)
        try:
            connection.request(method, parts.path.rstrip("/") + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read(MAX_ANSWER)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CommandError(f"the gateway at {endpoint.url} doesn't answer: {_words(error)}; is it running?") from None
    return _read(endpoint, status, content)


def _read(endpoint: Endpoint, status: int, content: bytes) -> Any:
    try:
        answer = json.loads(content)
        if status < 400:
            return answer
        error = answer["error"]
        field = f"{error['field']} " if "field" in error else ""
        raise CommandError(f"{field}{error['message']}")
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{endpoint.url} answered {status}, and not as a gateway does") from None


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
