"""Whether a file of the settings has changed since it was read, without reading it: certificates and keys are renewed while the gateway runs."""

from __future__ import annotations

from pathlib import Path

FileState = tuple[int, int, int] | None
"""Its time, size and number; None where it can't be looked at."""


def file_state(path: Path) -> FileState:
    """Another one than before means that the file is to be read again."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
