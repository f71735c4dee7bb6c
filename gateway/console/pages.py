"""Serves the pages: the files beside this one, as they are. Open to all, since nothing in them is secret; who asks the API is its own question.

A page runs the scripts of this listener and no others, talks to it and nobody else, is shown in no frame, and leaves no form to the browser:
what is typed in can't end in a URL. Neighbours: gateway/api/routes.py, which puts them beside its routes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

FILES: Final = {
    "/signature": ("signature.html", "text/html; charset=utf-8"),
    "/signature.js": ("signature.js", "text/javascript; charset=utf-8"),
    "/signature.css": ("signature.css", "text/css; charset=utf-8"),
}
"""By path the file and its type."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page_routes() -> APIRouter:
    """The files, read once."""
    router = APIRouter()
    folder = Path(__file__).parent
    answers = {path: ((folder / name).read_bytes(), media_type) for path, (name, media_type) in FILES.items()}

    async def page(request: Request) -> Response:
        body, media_type = answers[request.scope["path"]]
        return Response(body, 200, HEADERS, media_type)

    for path in answers:
        router.add_route(path, page, methods=["GET"], include_in_schema=False)
    return router
