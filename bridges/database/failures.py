"""What an error of a database means: another try, now or when others had their turn, a medium that fails, or a call that can't be done.

A transaction that lost against another one (deadlock, serialization, two that made the same thing) left nothing behind and is
done again. Whatever else the server or the way to it says may pass by itself. What a driver says of values and statements doesn't.
"""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from bridges.database.versions import reason

__all__ = ["MEDIUM_ERRORS", "Meaning", "meaning", "reason"]

MEDIUM_ERRORS: Final = (SQLAlchemyError, sqlite3.Error)
"""What SQLite raises; the driver's own root is for where SQLAlchemy doesn't wrap, in hooks and fetches."""

_LOST: Final = frozenset(("40001", "40P01", "23505", "25P03"))
"""Serialization failure, deadlock, a unique value that another transaction had not committed when this one looked, and a transaction that the
server ended because nothing was heard of it (`idle_in_transaction_session_timeout`)."""
_WAITED: Final = "55P03"
"""Waited for a lock as long as `lock_timeout` allows."""
_OF_THE_CALL: Final = ("DataError", "ProgrammingError", "IntegrityError", "NotSupportedError")


class Meaning(Enum):
    AGAIN = auto()
    BUSY = auto()
    MEDIUM = auto()
    CALL = auto()


def meaning(error: Exception, driver: Any) -> Meaning:
    """``driver`` is the module of the DBAPI in use."""
    found = getattr(error, "orig", None) or error
    if getattr(found, "sqlstate", None) in _LOST:
        return Meaning.AGAIN
    if getattr(found, "sqlstate", None) == _WAITED:
        return Meaning.BUSY
    if driver is not sqlite3:
        if isinstance(found, tuple(getattr(driver, name) for name in _OF_THE_CALL)):
            return Meaning.CALL
        if isinstance(found, driver.Error):
            return Meaning.MEDIUM
    return Meaning.MEDIUM if isinstance(error, MEDIUM_ERRORS) else Meaning.CALL
