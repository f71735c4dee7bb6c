"""Which scope a bearer key needs for a route: one rule, which both the guard and the documentation ask.

Looking needs `read`, all else `write`; who may do what is `admin`'s alone. A route that nobody thought of here is covered all the same.
"""

from __future__ import annotations

from typing import Final

from gateway.auth.bearers import SCOPES

_ACCESS: Final = ("/api/v1/keys", "/api/v1/bearer-keys")
"""Keys: only to list them needs admin."""
_RULES: Final = ("/api/v1/policies", "/api/v1/signature")
"""Access rules, which everybody who may look sees, and what tells whether a secret is right."""
_LOOKING: Final = ("GET", "HEAD")


def _lies_under(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root + "/") for root in roots)


def scope_of(method: str, path: str) -> str:
    """The scope for a request; ``path`` may be a route's, with its parameters in braces."""
    looks = method.upper() in _LOOKING
    if _lies_under(path, _ACCESS) or (_lies_under(path, _RULES) and not looks):
        return "admin"
    return "read" if looks else "write"


def is_enough(scope: str, needed: str) -> bool:
    return SCOPES.index(scope) >= SCOPES.index(needed)
