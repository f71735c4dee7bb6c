"""The version of a database: refuses what is not ours or newer, and brings the rest to this program's version."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from schemas.errors import StartError

MIGRATIONS: Final = Path(__file__).with_name("migrations")
VERSION_TABLE: Final = "alembic_version"


def reason(error: BaseException) -> str:
    """The database's own words, in one line, without SQLAlchemy's statement and link."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def stored_versions(connection: Connection) -> list[str] | None:
    """None where there are tables and none of them says a version: somebody else's."""
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE in tables:
        versions = [row[0] for row in connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}")]  # noqa: S608
        return versions or None
    return None if tables else []


def refuse_unknown(name: str, versions: list[str]) -> None:
    script = ScriptDirectory.from_config(_config())
    known = {revision.revision for revision in script.walk_revisions()}
    for version in versions:
        if version not in known:
            raise StartError(f"{name}: the database has version {version}, this program knows up to {script.get_current_head()}: run a newer program")


def migrate(connection: Connection) -> None:
    """In the connection's transaction."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
