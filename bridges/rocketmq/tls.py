"""The TLS side of a connection's settings."""

from __future__ import annotations

import ssl

from schemas.connections import ConnectionSettings
from schemas.errors import SettingsError


def client_context(settings: ConnectionSettings) -> ssl.SSLContext | None:
    """None without TLS. The broker's certificate is checked always."""
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca)
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ValueError) as error:
        # An ssl.SSLError is an OSError too.
        raise SettingsError(f"connections.{settings.name}: the TLS files `ca`, `certificate` and `key` can't be used: {error}") from error
    return context
