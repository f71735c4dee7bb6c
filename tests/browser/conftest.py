"""A real browser: Chromium as the machine has it (scripts/test installs it), driven by Playwright. `SLUICEWAY_TEST_BROWSER` names another one."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ELSEWHERE = "gateway.test"
"""A name of this machine that a browser takes for another one."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    found = os.environ.get("SLUICEWAY_TEST_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "no Chromium on this machine: scripts/test installs it"
    # Its own sandbox wants rights that root in a container lacks; it sees pages of ours alone
    options = ["--no-sandbox", "--disable-dev-shm-usage", f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        await browser.close()
