"""The page that checks a Signature login, in a browser against a running gateway: what it says, what it sends and to whom; that text stays text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, Request, expect

from gateway.auth.login import sign
from tests.browser.conftest import ELSEWHERE
from tests.support.gateway import AccessKey, Gateway

pytestmark = pytest.mark.slow

CLIENT = "GID_test@@@d1"
SCRIPT = "<img src=x onerror=\"document.title='run'\">"


class Desk:
    """A person before the page."""

    def __init__(self, page: Page, gateway: Gateway, bearer: str) -> None:
        self.page, self.gateway, self.bearer = page, gateway, bearer
        made = self.api("keys", {})
        self.key = AccessKey(made["accessKeyId"], made["accessKeySecret"], made["instanceId"])
        self.asked: list[Request] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def api(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.bearer}"}
        return httpx.post(f"http://{self.gateway.http}/api/v1/{path}", json=body, headers=headers, trust_env=False).raise_for_status().json()  # type: ignore[no-any-return]

    async def check(self, says: str, **fields: str) -> None:
        user, password = f"Signature|{self.key.id}|{self.key.instance}", sign(self.key.secret.encode(), CLIENT).decode()
        for name, value in ({"clientId": CLIENT, "userName": user, "password": password, "bearerKey": self.bearer} | fields).items():
            await self.page.fill(f"#{name}", value)
        await self.page.click("button")
        await expect(self.page.locator("#result")).to_have_text(says)


@pytest.fixture
async def desk(browser: Browser, start_gateway: Callable[..., Gateway]) -> Desk:
    gateway = start_gateway()
    bearer = json.loads(gateway.run("bearer", "create", "page", "--scope", "admin", "--json"))["bearerKey"]
    page = await browser.new_page()
    desk = Desk(page, gateway, bearer)
    await page.goto(f"http://{gateway.http}/signature")
    return desk


async def test_what_is_wrong_is_said(desk: Desk) -> None:
    await desk.check("The login is right.")
    await desk.check("the password is the secret itself: it must be base64(HMAC-SHA1(secret, client id))", password=desk.key.secret)
    await desk.check("there is no active access key of this id", userName="Signature|other|x")
    await desk.check("the mode word is 'signature', not 'Signature' in this very spelling", userName=f"signature|{desk.key.id}|x")
    await desk.check("no valid bearer key", bearerKey="swb_0_0")
    reader = desk.api("bearer-keys", {"name": "reader", "scope": "read"})["bearerKey"]
    await desk.check("this needs a bearer key of the scope admin, and this one has read", bearerKey=reader)
    desk.gateway.stop()
    await desk.check("The gateway does not answer.")
    await expect(desk.page.locator("button")).to_be_enabled()


async def test_it_talks_to_the_gateway_alone_and_the_key_is_in_a_header_alone(desk: Desk) -> None:
    await desk.check("The login is right.")
    origin = f"http://{desk.gateway.http}/"
    paths = [request.url.removeprefix(origin) for request in desk.asked]
    assert sorted(paths) == ["api/v1/signature", "signature", "signature.css", "signature.js"]
    asked = next(request for request in desk.asked if request.method == "POST")
    assert set(json.loads(asked.post_data or "")) == {"clientId", "userName", "password"}
    assert (await asked.all_headers())["authorization"] == f"Bearer {desk.bearer}"
    assert desk.complaints == []
    desk.asked.clear()
    await desk.check("The login is right.", bearerKey="my password")  # which is no bearer key, so nothing happens
    assert desk.asked == []
    assert desk.page.url == origin + "signature"
    assert await desk.page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


async def test_what_is_typed_in_stays_text(desk: Desk) -> None:
    await desk.check(f"the mode word is {SCRIPT!r}", userName=f"{SCRIPT}|{desk.key.id}|x")
    assert await desk.page.locator("img").count() == 0
    assert await desk.page.title() == "Sluiceway: check a Signature login"


async def test_from_elsewhere(desk: Desk) -> None:
    """It says that it came in clear text, and a page of another origin can neither show it nor ask in its place."""
    await expect(desk.page.locator("#clear")).to_be_hidden()
    await desk.page.goto(f"http://{ELSEWHERE}:{desk.gateway.http.port}/signature")
    await expect(desk.page.locator("#clear")).to_be_visible()
    await desk.page.goto(f"http://{ELSEWHERE}:{desk.gateway.http.port}/healthz")
    await desk.page.set_content(f'<iframe src="http://{desk.gateway.http}/signature"></iframe>')
    await expect(desk.page.frame_locator("iframe").locator("form")).to_have_count(0)
    failed = await desk.page.evaluate(
        """url => fetch(url, {method: "POST", headers: {"Authorization": "Bearer x"}}).then(() => "answered", () => "refused")""",
        f"http://{desk.gateway.http}/api/v1/signature",
    )
    assert failed == "refused"
