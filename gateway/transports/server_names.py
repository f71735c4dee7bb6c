"""Which certificate a client gets: the one that names the server it asked for (SNI), else the default one.

A certificate says itself for which names it is, in its subjectAltName; `*.example.org` there stands for one label. An exact name goes before a
pattern. Knows contexts as things to hand out; certificates.py makes them.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509

from schemas.errors import StartError

MAX_NAMES: Final = 10_000
"""Of all certificates together."""


def dns_names(file: Path) -> list[str]:
    """The DNS names of the first certificate in a PEM file, in lower case. StartError where it has none: nobody would ever get it."""
    try:
        certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [name.lower() for name in alternatives.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        names = []
    except (OSError, ValueError) as error:
        raise StartError(f"certificate {file} can't be read ({error}); give a PEM file") from None
    if not names:
        raise StartError(f"certificate {file} has no DNS name in its subjectAltName, so that no client could ask for it; give one that has")
    return names


class ServerNames:
    """Contexts by server name. ``add`` refuses a name that is there already."""

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}

    def __bool__(self) -> bool:
        return bool(self._contexts)

    def add(self, names: Iterable[str], context: ssl.SSLContext) -> None:
        for name in names:
            if self._contexts.setdefault(name, context) is not context:
                raise StartError(f"{name} is a name of a section before it already; leave one of the two out")
        if len(self._contexts) > MAX_NAMES:
            raise StartError(f"there are more than {MAX_NAMES} names; leave some certificates out")

    def find(self, name: str | None) -> ssl.SSLContext | None:
        """The context for a name that a client has sent; None: the default one's."""
        if name is None:
            return None
        name = name.lower()
        return self._contexts.get(name) or self._contexts.get("*." + name.partition(".")[2])
