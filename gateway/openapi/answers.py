"""Answers in JSON and XML: the fields of an action with a request id, or a fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

import msgspec
from fastapi import Response

from gateway.openapi.faults import Fault

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML can't carry at all."""


def answer(action: str, fields: Mapping[str, Any], request_id: str, *, xml: bool) -> Response:
    return _respond(200, f"{action}Response", {**fields, "RequestId": request_id}, request_id, xml=xml)


def fault_answer(fault: Fault, host: str, request_id: str, *, xml: bool) -> Response:
    body = {"RequestId": request_id, "HostId": host, "Code": fault.code, "Message": fault.message}
    return _respond(fault.status, "Error", body, request_id, xml=xml)


def _respond(status: int, root: str, body: Mapping[str, Any], request_id: str, *, xml: bool) -> Response:
    headers = {**_HEADERS, "x-acs-request-id": request_id}
    if xml:
        text = f'<?xml version="1.0" encoding="UTF-8"?><{root}>{_elements(body)}</{root}>'
        return Response(text.encode(), status, headers, "text/xml;charset=utf-8")
    return Response(msgspec.json.encode(body), status, headers, "application/json;charset=utf-8")


def _elements(fields: Mapping[str, Any]) -> str:
    return "".join(_element(name, value) for name, value in fields.items())


def _element(name: str, value: Any) -> str:
    """A list is its element again for each entry."""
    if isinstance(value, list | tuple):
        return "".join(_element(name, entry) for entry in value)
    if isinstance(value, Mapping):
        return f"<{name}>{_elements(value)}</{name}>"
    text = ("false", "true")[value] if isinstance(value, bool) else "" if value is None else str(value)
    return f"<{name}>{escape(_NOT_XML.sub('?', text))}</{name}>"
