"""One segment file: what is written comes back, checked, by record number and by time."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from bridges.local import segment as segments
from bridges.local.segment import TOPICS, Row, make_row
from schemas.errors import LogDamaged

BASE = {"publish": 100, "presence": 7}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = segments.segment_path(tmp_path, 3)
    segments.create(path, "")
    return path


def fill(path: Path, frames: int = 10, count: int = 5) -> apsw.Connection:
    database = segments.connect(path, "")
    first = BASE["publish"]
    for number in range(frames):
        rows = [make_row("publish", first, count, 1000 + 10 * number, b"body %d" % number)]
        segments.write(database.cursor(), rows, BASE if number == 0 else None)
        first += count
    return database


def test_a_segment_syncs_every_commit_and_checkpoints_only_when_told(path: Path) -> None:
    database = segments.connect(path, "")
    wanted = {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0, "page_size": segments.PAGE, "user_version": segments.FORMAT}
    assert {name: database.pragma(name) for name in wanted} == wanted
    database.close()


def test_an_unfinished_segment_has_no_segment_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError):
        segments.create(segments.segment_path(tmp_path, 1), "")
    assert [path.suffix for path in tmp_path.iterdir()] == [".new"]


def test_the_write_ahead_log_has_its_size_before_the_first_group(path: Path) -> None:
    """Overwriting it costs half the sync that growing it costs."""
    database = segments.connect(path, "")
    segments.widen_wal(database, 300_000)
    wal = Path(f"{path}-wal")
    size = wal.stat().st_size
    assert size >= 300_000
    assert segments.read_ends(database) == {}
    segments.write(database.cursor(), [make_row("publish", 0, 1, 5, b"x" * 1000)], dict.fromkeys(TOPICS, 0))
    assert wal.stat().st_size == size
    assert database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0] < 10
    database.close()


def test_both_topics_are_one_transaction_and_one_sync(path: Path) -> None:
    database = segments.connect(path, "")
    rows = [make_row("presence", 7, 2, 1, b"one"), make_row("publish", 100, 3, 1, b"two")]
    segments.write(database.cursor(), rows, BASE)
    assert segments.read_ends(database) == {"publish": (100, None), "presence": (7, None)}
    clash = [make_row("presence", 9, 1, 2, b"three"), make_row("publish", 100, 1, 2, b"in use")]
    with pytest.raises(apsw.ConstraintError):
        segments.write(database.cursor(), clash, None)
    assert not database.in_transaction
    assert [row.next for topic in TOPICS for row in segments.last_rows(database, topic, 9)] == [9, 103]
    database.close()


@pytest.mark.parametrize(("number", "below", "firsts"), [(100, 999, list(range(100, 150, 5))), (107, 116, [105, 110, 115]), (149, 150, [145])])
def test_reading_begins_with_the_frame_that_holds_the_record(path: Path, number: int, below: int, firsts: list[int]) -> None:
    database = fill(path)
    assert [row.first for row in segments.read(database, "publish", number, below)] == firsts
    database.close()


def test_a_gap_between_frames_is_damage(path: Path) -> None:
    database = fill(path)
    database.execute("DELETE FROM publish WHERE first = 120")
    with pytest.raises(LogDamaged, match="lacks records 120 to 125"):
        list(segments.read(database, "publish", 100, 999))
    database.close()


@pytest.mark.parametrize("change", ["body = x'00'", "time = time + 1", "next = next + 1", "crc = 'text'", "time = 'text'"])
def test_a_changed_frame_is_damage(path: Path, change: str) -> None:
    database = fill(path)
    database.execute("UPDATE publish SET $ WHERE first = 120".replace("$", change))
    with pytest.raises(LogDamaged, match="frame 120 of topic publish is damaged"):
        list(segments.read(database, "publish", 120, 125))
    database.close()


def test_a_changed_beginning_is_damage(path: Path) -> None:
    database = fill(path)
    database.execute("UPDATE ends SET base = base - 1")
    with pytest.raises(LogDamaged, match="where its topics begin"):
        segments.read_ends(database)
    database.close()


@pytest.mark.parametrize(("time", "first"), [(0, 100), (1000, 100), (1001, 105), (1045, 125), (1090, 145), (1091, 150)])
def test_a_time_is_found_by_bisection(path: Path, time: int, first: int) -> None:
    database = fill(path)
    assert segments.find_time(database, "publish", time, 100, 150) == first
    database.close()


def test_a_sealed_segment_is_one_file_with_its_ends(path: Path) -> None:
    """What was never acknowledged is dropped with the seal."""
    fill(path).close()
    segments.seal(path, {"publish": 140, "presence": 7}, "")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    database = segments.connect_sealed(path, "")
    assert segments.read_ends(database) == {"publish": (100, 140), "presence": (7, 7)}
    assert [row.next for row in segments.last_rows(database, "publish", 1)] == [140]
    database.close()


def test_rows_carry_their_checksum() -> None:
    row = make_row("publish", 1, 2, 3, b"body")
    assert segments.check(row) is row
    assert row[:4] == ("publish", 1, 3, 3)
    with pytest.raises(LogDamaged):
        segments.check(Row(*row[:5], b"bodY"))
