"""The data folder: made and checked at a start, and told from every other folder by a name of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from schemas.errors import StartError

IDENTITY_FILE: Final = "folder.id"
WORKER_FOLDER: Final = "worker-"
"""Before a worker's number: its own data folder, within that of all."""


def prepare_folder(data: Path) -> None:
    """Make it where it is missing; StartError where it can't serve."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"data folder {data} can't be made: {error.strerror}") from None
    if not os.access(data, os.W_OK | os.X_OK):
        raise StartError(f"data folder {data} can't be written: give this user the right, or name another with --data")


def folder_identity(data: Path) -> str:
    """What tells this data folder from every other; made where it is missing. Whoever holds the folder's lock knows that earlier users are gone."""
    file = data / IDENTITY_FILE
    try:
        with contextlib.suppress(FileNotFoundError):
            known = file.read_text("ascii").strip()
            if known:
                return known
        made = secrets.token_hex(16)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as out:
            out.write(made + "\n")
            out.flush()
            os.fsync(out.fileno())
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{file} can't be used: {getattr(error, 'strerror', '') or error}; delete it, or mend its permissions") from None
    return made
