"""The start of the log: lock the folder, look at every segment, cut a torn tail, refuse what is damaged or newer.

Everything is looked at before anything is changed, so that a refused start leaves the folder as it was. Blocking; log.py
runs it on the keeper's thread. Neighbours: segment.py (one file), log.py (who gets the result).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import apsw

from bridges.local import segment as segments
from bridges.local.segment import FORMAT, SUFFIX, TOPICS, Segment
from schemas.errors import LogDamaged, StartError
from schemas.records import FrameError, decode_frame

_MAGIC: Final = b"SQLite format 3\x00"
_TAIL_FRAMES: Final = 64
"""Frames checked at the end of a segment that was not sealed."""
_WAL_HEADER: Final = struct.Struct(">IIIIIIII")
_WAL_SUMS: Final = struct.Struct(">II")
_WAL_FRAME_SIZE: Final = 24


class Recovered:
    """What a start found: the sealed segments in order, and where each topic goes on."""

    def __init__(self, kept: list[Segment], ends: dict[str, int], times: dict[str, int], number: int) -> None:
        self.kept = kept
        self.ends = ends
        self.times = times
        self.number = number
        """The number for the next segment."""


def lock_folder(folder: Path) -> int:
    """Make the folder and hold it for this process; the handle to close at the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"the log's folder {folder} can't be used: {error.strerror}; choose another data folder or its permissions") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StartError(f"the log's folder {folder} is in use by another process: stop it, or choose another data folder") from error
    return handle


def recover(folder: Path, vfs: str, node: str, epoch: int) -> Recovered:
    """Check the folder's segments and seal those that a crash left open."""
    try:
        return _recover(folder, vfs, node, epoch)
    except (apsw.FullError, apsw.ReadOnlyError, apsw.CantOpenError) as error:
        raise StartError(f"the log's folder {folder} can't be used: {error}") from error
    except (apsw.Error, ValueError) as error:
        raise LogDamaged(f"the log in {folder} can't be read ({error}): restore the data folder from a copy") from error
    except OSError as error:
        raise StartError(f"the log's folder {folder} can't be used: {error.strerror}") from error


def _recover(folder: Path, vfs: str, node: str, epoch: int) -> Recovered:
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    for path in paths:
        _check_header(path)
    found: list[Segment] = []
    unused: list[Path] = []
    for path in paths:
        segment = _inspect(path, vfs)
        if segment is None:
            unused.append(path)
        else:
            found.append(segment)
    _join(found)
    _check_epoch(found, vfs, node, epoch)
    # From here on the folder is changed.
    for path in (*unused, *folder.glob("*.new")):
        segments.remove(path)
    for segment in found:
        if not segment.sealed:
            segments.seal(segment.path, segment.end, vfs)
            segment.sealed = True
        segment.size = segment.path.stat().st_size
    ends = dict(found[-1].end) if found else dict.fromkeys(TOPICS, 0)
    times = dict(found[-1].time) if found else dict.fromkeys(TOPICS, 0)
    number = 1 + max((int(path.stem) for path in paths), default=0)
    return Recovered(found, ends, times, number)


def _check_header(path: Path) -> None:
    """The format's version, read without SQLite: a newer file is not touched."""
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(_MAGIC) or not path.stem.isdecimal():
        raise LogDamaged(f"{path} is not a segment of the log: restore the data folder from a copy, or move the file away")
    version = int.from_bytes(head[60:64], "big")
    if version > FORMAT:
        raise StartError(f"{path} has version {version} of the log's format, this program knows {FORMAT}: run a newer program")


def _inspect(path: Path, vfs: str) -> Segment | None:
    """What the segment holds; None for one that was made ready and never used."""
    wal = Path(f"{path}-wal")
    if not wal.exists() and not Path(f"{path}-journal").exists():
        database = segments.connect_sealed(path, vfs)
        try:
            ends = segments.read_ends(database)
            if ends and all(following is not None for _, following in ends.values()):
                return _describe(path, database, ends, sealed=True)
        finally:
            database.close()
    database = segments.connect(path, vfs)
    try:
        ends = segments.read_ends(database)
        if wal.exists():
            _check_wal(wal, database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0])
        if not ends:
            return None
        if (verdict := database.execute("PRAGMA quick_check(1)").get) != "ok":
            raise LogDamaged(f"{path} is damaged ({' '.join(str(verdict).split())}): restore the data folder from a copy")
        return _describe(path, database, ends, sealed=False)
    finally:
        database.close()


def _describe(path: Path, database: apsw.Connection, ends: dict[str, tuple[int, int | None]], *, sealed: bool) -> Segment:
    if ends.keys() != set(TOPICS):
        raise LogDamaged(f"{path} does not say where its topics begin: restore the data folder from a copy")
    base = {topic: first for topic, (first, _) in ends.items()}
    end, time = dict(base), dict.fromkeys(TOPICS, 0)
    for topic in TOPICS:
        rows = segments.last_rows(database, topic, 1 if sealed else _TAIL_FRAMES)
        if rows:
            if segments.first_record(database, topic) != base[topic]:
                raise LogDamaged(f"{path} does not begin at record {base[topic]} of topic {topic}: restore the data folder from a copy")
            end[topic], time[topic] = rows[0].next, rows[0].time
        stored = ends[topic][1]
        if sealed and stored != end[topic]:
            raise LogDamaged(f"{path} ends at record {end[topic]} of topic {topic} instead of {stored}: restore the data folder from a copy")
    segment = Segment(int(path.stem), path, base, end, time)
    segment.sealed = sealed
    return segment


def _join(found: list[Segment]) -> None:
    """Each segment begins where the one before it ends. What lies past that was never acknowledged: its segment was given up."""
    for earlier, later in zip(found, found[1:], strict=False):
        for topic in TOPICS:
            if earlier.end[topic] < later.base[topic] or (earlier.sealed and earlier.end[topic] > later.base[topic]):
                raise LogDamaged(
                    f"{earlier.path.name} ends at record {earlier.end[topic]} of topic {topic}, but {later.path.name} begins at "
                    f"{later.base[topic]}: restore the data folder from a copy"
                )
            earlier.end[topic] = later.base[topic]
            later.time[topic] = max(later.time[topic], earlier.time[topic])


def _check_epoch(found: Iterable[Segment], vfs: str, node: str, epoch: int) -> None:
    """A node that starts writes under a higher epoch than before; else readers would take its frames for repeats."""
    for segment in reversed(list(found)):
        if segment.empty:
            continue
        database = segments.connect_sealed(segment.path, vfs) if segment.sealed else segments.connect(segment.path, vfs)
        try:
            frames = [decode_frame(row.body) for topic in TOPICS for row in segments.last_rows(database, topic, 1)]
        except FrameError as error:
            raise LogDamaged(f"{segment.path}: {error}") from error
        finally:
            database.close()
        newest = max((frame.epoch for frame in frames if frame.node == node), default=-1)
        if newest >= epoch:
            raise LogDamaged(f"the log was written under epoch {newest}, this start has epoch {epoch}: log and store are not of one data folder")
        return


def _check_wal(wal: Path, valid: int) -> None:
    """Tell a torn tail from damage.

    SQLite reads the WAL up to the first frame that fails its checksum. A group is synced before the next begins, so a crash
    leaves at most one commit mark of the WAL's current round behind that place; more are groups that were durable once. One start
    after another may have been cut off, though, and written to the same place: what they left has one mark each and doesn't go on from
    what the others left, as a frame's checksum does from that of the frame before it.
    """
    with wal.open("rb") as file:
        head = file.read(_WAL_HEADER.size)
        if not head.strip(b"\x00"):
            return
        if len(head) < _WAL_HEADER.size or not _is_wal_header(head):
            raise LogDamaged(f"{wal} is damaged at its beginning: restore the data folder from a copy")
        salts, page = head[16:24], int.from_bytes(head[8:12], "big")
        marks, before = 0, b""
        file.seek(_WAL_HEADER.size + valid * (_WAL_FRAME_SIZE + page))
        while len(frame := file.read(_WAL_FRAME_SIZE + page)) == _WAL_FRAME_SIZE + page:
            if frame[8:16] != salts:
                before = b""
                continue
            if not before or _sums(head, frame[:8] + frame[_WAL_FRAME_SIZE:], before) != frame[16:24]:
                marks = 0
            marks, before = marks + (frame[4:8] != b"\x00\x00\x00\x00"), frame[16:24]
            if marks > 1:
                raise LogDamaged(f"{wal} is damaged before its end: restore the data folder from a copy")


def _is_wal_header(head: bytes) -> bool:
    """The WAL header's own checksum: over its first six words."""
    return _sums(head, head[:24]) == head[24:32]


def _sums(head: bytes, data: bytes, before: bytes = bytes(8)) -> bytes:
    """SQLite's two sums over pairs of words, in the byte order that the header's magic number names, from those that it is to go on from."""
    one, two = _WAL_SUMS.unpack(before)
    for first, second in struct.iter_unpack("<II" if head[3] & 1 == 0 else ">II", data):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return _WAL_SUMS.pack(one, two)
