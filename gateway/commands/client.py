"""Calls of the HTTP API. Standard library only, and no proxies: the gateway is a neighbour."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.commands.endpoint import Endpoint
from gateway.commands.errors import CommandError

TIMEOUT: Final = 70.0
"""Seconds: longer than a publish may wait for the log (limits.log_wait)."""

MAX_ANSWER: Final = 64 * 1024 * 1024

_SCHEMES: Final = ("http", "https")


def call(endpoint: Endpoint, method: str, path: str, body: object = None) -> Any:
    """The answer's JSON; CommandError where there is none or it is an error."""
    parts = urlsplit(endpoint.url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise CommandError(f"{endpoint.url!r} is not a URL like http://127.0.0.1:8080")
    basic = base64.b64encode(f"{endpoint.access_key}:{endpoint.secret}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
    try:
        connection = _connect(endpoint, parts.scheme, parts.hostname, parts.port)
        try:
            connection.request(method, parts.path.rstrip("/") + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read(MAX_ANSWER)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CommandError(f"the gateway at {endpoint.url} doesn't answer: {_words(error)}; is it running?") from None
    return _read(endpoint, status, content)


def _connect(endpoint: Endpoint, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    """A connection on which nothing was said yet; of HTTPS it is known by now who is there."""
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    context = ssl.create_default_context(cafile=endpoint.ca_file)
    if endpoint.certificate:
        # A gateway of this machine: its own certificate and no other, whatever name and authority it has.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
    if endpoint.certificate:
        connection.connect()
        shown = connection.sock.getpeercert(binary_form=True)
        first = Path(endpoint.certificate).read_text("ascii").partition("-----END CERTIFICATE-----")
        begin = first[0].rfind("-----BEGIN CERTIFICATE-----")
        if shown is None or ssl.PEM_cert_to_DER_cert(first[0][begin:] + first[1]) != shown:
            connection.close()
            raise ssl.SSLError(f"it shows another certificate than {endpoint.certificate}")
    return connection


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
