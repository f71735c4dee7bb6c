"""Names of documents as a database can have them: PostgreSQL's text takes no U+0000, which stands between the parts of some names.

What is written instead sorts as what it stands for.
"""

from __future__ import annotations

from sqlalchemy import Connection

from bridges.database.locks import is_shared


def stored_name(connection: Connection, name: str) -> str:
    return name.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01") if is_shared(connection) else name


def read_name(connection: Connection, stored: str) -> str:
    return stored.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01") if is_shared(connection) else stored
