"""Where state is kept: by default in the data folder, else where the settings say, with a password that stays a secret."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gateway.opening import open_store
from schemas.errors import StartError
from schemas.settings import Settings, StoreSettings
from tests.support.postgresql import PostgreSQL


async def test_state_lies_in_the_data_folder_unless_told_otherwise(tmp_path: Path) -> None:
    store = open_store(Settings(data=tmp_path), asyncio.get_running_loop())
    await store.close()
    assert [file.name for file in tmp_path.iterdir()] == ["state.db"]


async def test_a_password_file_opens_the_database(tmp_path: Path) -> None:
    server = PostgreSQL("postgresql", tmp_path / "guarded", password="right-secret").start()
    file = tmp_path / "password"
    try:
        settings = Settings(data=tmp_path, store=StoreSettings(url=server.url("postgres"), password_file=file))
        file.write_text("right-secret\n")
        await open_store(settings, asyncio.get_running_loop()).close()
        file.write_text("wrong-secret\n")
        with pytest.raises(StartError, match="password authentication failed") as caught:
            open_store(settings, asyncio.get_running_loop())
        assert "wrong-secret" not in str(caught.value)
    finally:
        server.remove()


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), (b"\xff", "not UTF-8 text")])
async def test_a_password_file_that_can_t_be_read_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    settings = Settings(data=tmp_path, store=StoreSettings(url="postgresql://u@127.0.0.1:1/x", password_file=file))
    with pytest.raises(StartError, match=rf"^store\.password_file: {re.escape(str(file))} can't be read: {why}$"):
        open_store(settings, asyncio.get_running_loop())
