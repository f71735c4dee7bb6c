"""Opens what the settings name: the log, the store, and the backends of connections. With app.py the one module that knows the bridges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from bridges.database.store import DatabaseStore
from bridges.local.log import open_log
from bridges.local.options import LogOptions
from bridges.local.recovery import lock_folder
from schemas.connections import ConnectionSettings
from schemas.errors import StartError
from schemas.identities import Secret
from schemas.settings import Settings
from streams.backend import Backend
from streams.log import Log

BACKENDS = {"kafka": ("bridges.kafka.backend", "KafkaBackend"), "rocketmq": ("bridges.rocketmq.backend", "RocketmqBackend")}
LOGS = {"kafka": "bridges.kafka.log", "rocketmq": "bridges.rocketmq.log"}
"""Imported when a connection, or the log, of the kind is configured: a plain install lacks what they need."""


def hold_folder(data: Path) -> int:
    """Keep other gateways off a data folder for as long as this process lives; the handle to close at the end."""
    return lock_folder(data)


async def open_configured_log(settings: Settings, epoch: int, may_write: Callable[[], bool]) -> tuple[Log, tuple[str, ...], int]:
    """The log that the settings ask for, why an acknowledged record could be lost in it, and under which epoch it was written last, as far as it
    doesn't look itself. While ``may_write`` says no, others get nothing."""
    wanted = settings.log
    if wanted.kind == "embedded":
        options = LogOptions(
            segment_bytes=wanted.segment_bytes,
            segment_age=wanted.segment_age,
            retention_bytes=wanted.retention_bytes,
            retention_age=wanted.retention_age,
        )
        return await open_log(settings.data / "log", node=settings.node.id, epoch=epoch, options=options), (), 0
    connection = next(connection for connection in settings.connections if connection.name == wanted.connection)
    module = _installed(LOGS[wanted.kind], connection)
    log = await module.open_configured(connection, settings, epoch, may_write)
    return log, log.weaknesses, log.newest_epoch


def _installed(module: str, connection: ConnectionSettings) -> Any:
    """A bridge's module; StartError where what it needs isn't installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise StartError(
            f"connections.{connection.name}.kind: {connection.kind} needs the package {error.name}, which isn't installed: "
            f"pip install 'sluiceway[{connection.kind}]'"
        ) from None


def connect_backend(connection: ConnectionSettings) -> Backend:
    """The connection's backend, which connects when it is used; StartError where what it needs isn't installed."""
    module, name = BACKENDS[connection.kind]
    make: Callable[[ConnectionSettings], Backend] = getattr(_installed(module, connection), name)
    return make(connection)


def open_store(settings: Settings, loop: asyncio.AbstractEventLoop) -> DatabaseStore:
    """The database that the settings name."""
    if not settings.store.url:
        return DatabaseStore.open(settings.data / "state.db", loop)
    file, password = settings.store.password_file, None
    if file is not None:
        try:
            password = Secret(file.read_text().strip("\r\n"))
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise StartError(f"store.password_file: {file} can't be read: {why}") from None
    return DatabaseStore.connect(settings.store.url, loop, password)
