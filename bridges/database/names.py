"""Names of documents as a database can have them: PostgreSQL's text takes no U+0000, which stands between the parts of some names.

What is written instead sorts as what it stands for.
"""

from __future__ import annotations

from sqlalchemy import Connection

from bridges.database.locks import is_shared


def may_be_there(connection: Connection, client: str) -> bool:
    """No client id has U+0000, and a database that has none can't be asked for one."""
    return "\x00" not in client or not is_shared(connection)


def stored_name(connection: Connection, name: str) -> str:
    return name.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01") if is_shared(connection) else name


def read_name(connection: Connection, stored: str) -> str:
    return stored.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01") if is_shared(connection) else stored
