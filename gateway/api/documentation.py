"""What the API says of itself: the schema at /openapi.json, with the scope and the errors of every route, and a page of it at /docs.

The page is made here: no script, nothing from elsewhere. Both want a key, as everything does that is not health or metrics.
"""

# No postponed annotations here: FastAPI reads those of the handlers, which name the guards of their enclosing function.

from html import escape
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse

from gateway.api.guard import guards
from gateway.api.scopes import scope_of
from gateway.api.services import ApiServices
from schemas.identities import Principal

PREFIX: Final = "/api/v1"
_SCHEMES: Final = {
    "accessKey": {"type": "http", "scheme": "basic", "description": "An access key's id and secret; the key's role says what it may do."},
    "bearerKey": {"type": "http", "scheme": "bearer", "description": "A bearer key; read, write or admin, each with what the ones before have."},
}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "field": {"type": "string"}},
        }
    },
}
_ERRORS: Final = {
    "400": "a field is missing or wrong; field names it",
    "401": "no key, or one that is not valid",
    "403": "the key is not for this",
    "404": "there is no such thing",
    "408": "the body came too slowly",
    "409": "it is in the way of something that is there",
    "413": "too large",
    "429": "too many logins from the address or with the key have failed; Retry-After says when to try again",
    "503": "it can't be made durable or read now",
}
_CREATED: Final = frozenset((("POST", "/keys"), ("POST", "/groups"), ("POST", "/topics"), ("POST", "/rules"), ("POST", "/bearer-keys")))
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}
_STYLE: Final = "body{font:15px sans-serif;margin:2em;max-width:70em}td,th{text-align:left;padding:.3em 1em .3em 0;vertical-align:top}"


def describe(app: FastAPI) -> None:
    """Have the schema say what the guard asks for."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]


def _schema(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = made.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    components.setdefault("schemas", {})["Error"] = _ERROR
    for path, methods in made["paths"].items():
        if path.startswith(PREFIX):
            for method, operation in methods.items():
                _complete(operation, method.upper(), path)
    made["paths"]["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    made["paths"]["/readyz"]["get"]["responses"]["503"] = {"description": "Not ready; reasons say why", "content": {"application/json": {}}}
    return made


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    scope = scope_of(method, path)
    operation["security"] = [{"accessKey": []}, {"bearerKey": [scope]}]
    operation["description"] = f"Needs a bearer key of the scope {scope}, or an access key whose role may do it."
    responses = operation["responses"]
    responses.pop("422", None)
    if (method, path.removeprefix(PREFIX)) in _CREATED:
        responses["201"] = responses.pop("200")
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status, words in _ERRORS.items():
        responses[status] = {"description": words, "content": content}


def documentation_routes(app: FastAPI, services: ApiServices) -> APIRouter:
    any_key, _ = guards(services)
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    async def schema(principal: Annotated[Principal, Depends(any_key)]) -> Response:
        return JSONResponse(app.openapi(), headers=_HEADERS)

    @router.get("/docs")
    async def page(principal: Annotated[Principal, Depends(any_key)]) -> Response:
        return HTMLResponse(_page(app.openapi()), headers=_HEADERS)

    return router


def _page(schema: dict[str, Any]) -> str:
    rows = []
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            scope = scope_of(method, path) if path.startswith(PREFIX) else "none"
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            fields = _fields(schema, body) + [f"{item['name']} ({item['in']})" for item in operation.get("parameters", ())]
            cells = (f"<code>{method.upper()} {escape(path)}</code>", escape(operation["summary"]), scope, escape(", ".join(fields)))
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "<tr><th>route</th><th>what</th><th>scope</th><th>fields</th></tr>"
    words = (
        "Show a bearer key (<code>Authorization: Bearer …</code>) of the scope named, or an access key by HTTP Basic. "
        "An error is <code>{&quot;error&quot;: {&quot;code&quot;, &quot;message&quot;, &quot;field&quot;}}</code>. "
        "The whole schema: <code>/openapi.json</code>."
    )
    title = f"{schema['info']['title']}: HTTP API"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{words}</p><table>{head}{''.join(rows)}</table></html>"
    )


def _fields(schema: dict[str, Any], body: dict[str, Any]) -> list[str]:
    """Names of a body's fields; those that must be there with a star."""
    if "$ref" in body:
        body = schema["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    required = body.get("required", ())
    return [name + "*" * (name in required) for name in body.get("properties", {})]
