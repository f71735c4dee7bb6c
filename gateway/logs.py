"""Log lines on standard error, as text or as JSON: one event a line, control characters escaped, a line's length bounded.

Callers log an event's name first, %-style, and neither payloads nor secrets. What peers choose (client ids, topics) can't end a line here
or speak to a terminal.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TextIO

from schemas.settings import LogFormat, LogLevel, Settings

MAX_LINE: Final = 8192
"""Characters of a message: a topic of the largest size fits, a flood doesn't."""

logger = logging.getLogger(__name__)

_QUIET: Final = ("uvicorn", "asyncio", "alembic", "sqlalchemy")
"""Libraries whose news are not events of this program: only their warnings are logged."""


def escape(text: str) -> str:
    """Text without control, line-separating or unprintable characters, each as in a Python literal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)


class _LineFormatter(logging.Formatter):
    """What both forms share: time, and message and traceback as one bounded line."""

    def time(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def message(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        message = escape(message)
        return message if len(message) <= MAX_LINE else message[:MAX_LINE] + "..."


class TextFormatter(_LineFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{self.time(record)} {record.levelname.lower():<7} {record.name} {self.message(record)}"


class JsonFormatter(_LineFormatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.time(record), "level": record.levelname.lower(), "logger": record.name, "message": self.message(record)}
        return json.dumps(line, ensure_ascii=False)


_FORMATTERS: Final[dict[LogFormat, type[logging.Formatter]]] = {"text": TextFormatter, "json": JsonFormatter}


def configure(level: LogLevel, form: LogFormat, stream: TextIO | None = None) -> None:
    """Send all log lines to one stream, standard error unless told otherwise. Replaces what was configured before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_FORMATTERS[form]())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def warn_of(settings: Settings, weaknesses: Iterable[str]) -> None:
    """What of the settings in force a reader of the log should know."""
    for weakness in weaknesses:
        logger.warning("durability-as-configured: acknowledged messages can be lost: %s", weakness)
    if settings.anonymous:
        logger.warning("anonymous-login-on: clients on this machine need no key and may do what a fresh key may")
    if settings.allow_plaintext_login:
        logger.warning("plaintext-login-on: logins may cross the network unencrypted")
