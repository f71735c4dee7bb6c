"""A disk that fails: a file layer under SQLite that injects errors and remembers what a power cut would take away.

Everything written since a file's last sync is kept with what it overwrote. ``cut`` first takes all of it back and then lets
chance decide, write by write, what had reached the medium: nothing, all, or some sectors; later writes may survive earlier
ones. From the cut on every operation fails, so that threads that still run can change nothing. It does not forget file
names: segments get theirs by a rename that is followed by a sync of the folder.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apsw

SECTOR = 512
_names = itertools.count()


def full() -> apsw.Error:
    return apsw.FullError("no space left on device")


def broken(code: int) -> apsw.Error:
    error = apsw.IOError("input/output error")
    error.extendedresult = code
    error.result = code & 0xFF
    return error


class _Write(NamedTuple):
    offset: int
    data: bytes
    before: bytes
    size: int
    """The file's size before it."""


Fault = Callable[[str, str], apsw.Error | None]
"""From an operation (``write``, ``sync``, ``truncate``, ``open``) and a file's name to the error that it meets."""


class Disk(apsw.VFS):
    """Use it as ``LogOptions(vfs=disk.name)``. ``fault`` may be set at any time; ``operations`` counts writes and syncs."""

    def __init__(self, seed: int = 0) -> None:
        self.name = f"disk-{next(_names)}"
        self.fault: Fault = lambda operation, name: None
        self.cut_at: int | None = None
        """The operation during which the power goes."""
        self.operations = 0
        self.syncs = 0
        self.lies = False
        """Syncs say yes and do nothing."""
        self.short = False
        """A failing write leaves the first half of its sectors behind."""
        self.dead = False
        self.random = random.Random(seed)
        self.guard = threading.RLock()
        self._unsynced: dict[str, list[_Write]] = {}
        super().__init__(self.name, "")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._meet("open", path)
        return _File(self, name, path, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.guard:
            self._meet("delete", filename)
            self._unsynced.pop(filename, None)
            super().xDelete(filename, syncdir)

    def _meet(self, operation: str, path: str | None) -> None:
        if self.dead:
            raise broken(apsw.SQLITE_IOERR_WRITE)
        error = self.fault(operation, Path(path or "").name)
        if error is not None:
            raise error

    def step(self, operation: str, path: str | None) -> bool:
        """One write or sync; true where the power goes during it."""
        self._meet(operation, path)
        self.operations += 1
        if self.operations == self.cut_at:
            self.dead = True
        return self.dead

    def unsynced(self, path: str | None) -> list[_Write]:
        return self._unsynced.setdefault(path or "", [])

    def cut(self, fate: str = "") -> None:
        """Power off (``fate``: none, all or each of the writes, else drawn for each file): leave on the real files what the medium would hold.

        Nobody may have them open any more for writing.
        """
        with self.guard:
            self.dead = True
            for path, writes in self._unsynced.items():
                if writes and Path(path).exists():
                    self._lose(path, writes, fate)
            self._unsynced.clear()

    def _lose(self, path: str, writes: list[_Write], fate: str) -> None:
        with Path(path).open("r+b") as file:
            for write in reversed(writes):
                file.seek(write.offset)
                file.write(write.before)
                file.truncate(write.size)
            fate = fate or self.random.choice(("none", "all", "each", "each"))
            for write in writes:
                if fate == "none" or (fate == "each" and self.random.random() < 0.4):
                    continue
                whole = fate == "all" or self.random.random() < 0.5
                for start in range(0, len(write.data), SECTOR):
                    if whole or self.random.random() < 0.5:
                        file.seek(write.offset + start)
                        file.write(write.data[start : start + SECTOR])
            file.flush()


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: apsw.URIFilename | str | None, path: str | None, flags: list[int]) -> None:
        self._disk = disk
        self._path = path
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        disk = self._disk
        with disk.guard:
            data = bytes(data)
            try:
                dying = disk.step("write", self._path)
            except apsw.Error:
                if disk.short and not disk.dead:
                    self._write(data[: len(data) // 2 // SECTOR * SECTOR], offset)
                raise
            self._write(data, offset)
            if dying:
                raise broken(apsw.SQLITE_IOERR_WRITE)

    def _write(self, data: bytes, offset: int) -> None:
        if not data:
            return
        size = self.xFileSize()
        before = self.xRead(min(len(data), size - offset), offset) if offset < size else b""
        self._disk.unsynced(self._path).append(_Write(offset, data, before, size))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        """Kept simple: what is cut off is gone at once, as a file system may do."""
        with self._disk.guard:
            self._disk.step("truncate", self._path)
            unsynced = self._disk.unsynced(self._path)
            unsynced[:] = [write for write in unsynced if write.offset + len(write.data) <= newsize]
            super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        disk = self._disk
        with disk.guard:
            if disk.step("sync", self._path):
                raise broken(apsw.SQLITE_IOERR_FSYNC)
            disk.syncs += 1
            if not disk.lies:
                disk.unsynced(self._path).clear()
