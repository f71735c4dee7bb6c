"""What the pages may load and do, by their headers and by what is in them; that a form asks for what the API takes. tests/browser has them in use."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from gateway.api.bodies import SignatureBody
from gateway.api.routes import create_api
from gateway.console import pages
from tests.unit.gateway.api.services import FakeServices
from tests.unit.gateway.auth.keystore import new_keyring


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture
async def client(tmp_path):
    app = create_api(FakeServices(await new_keyring(tmp_path)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, client=("192.0.2.1", 9)), base_url="http://gateway") as client:
        yield client


@pytest.mark.parametrize("path", sorted(pages.FILES))
async def test_every_file_comes_with_its_type_and_its_bounds(client, path):
    answer = await client.get(path)
    assert answer.status_code == 200
    suffix = Path(pages.FILES[path][0]).suffix
    assert answer.headers["content-type"] == {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}[suffix] + "; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert set(policy) == {"script-src", "style-src", "connect-src", "base-uri", "form-action", "frame-ancestors"}
    assert set(policy.values()) == {"'self'", "'none'"}
    assert [policy[name] for name in ("base-uri", "form-action", "frame-ancestors")] == ["'none'"] * 3


async def test_pages_take_no_other_method_and_nothing_else_of_the_folder_is_served(client):
    assert (await client.post("/signature")).status_code == 405
    for path in ("/signature.html", "/pages.py", "/signature/", "/signature/../pages.py"):
        assert (await client.get(path)).status_code == 404, path


async def test_the_page_names_files_that_there_are_and_none_from_elsewhere(client):
    text = (await client.get("/signature")).text
    elements = Elements(text).found
    named = {attributes[name] for _, attributes in elements for name in ("src", "href") if name in attributes}
    assert {"/" + name for name in named} == set(pages.FILES) - {"/signature"}
    for path in pages.FILES:
        assert not re.search(r"https?:|//[a-z]|@import|url\(|innerHTML|eval|insertAdjacent", (await client.get(path)).text)
    assert "<style" not in text
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on") or name == "style"]
    assert all("src" in attributes for tag, attributes in elements if tag == "script")


async def test_the_form_has_the_fields_that_the_api_takes(client):
    elements = Elements((await client.get("/signature")).text).found
    inputs = [attributes for tag, attributes in elements if tag == "input"]
    assert [attributes["name"] for attributes in inputs if "name" in attributes] == list(SignatureBody.model_json_schema(by_alias=True)["properties"])
    assert {attributes["id"] for attributes in inputs} == {attributes["for"] for tag, attributes in elements if tag == "label"}
    key = next(attributes for attributes in inputs if attributes["id"] == "bearerKey")
    assert key["type"] == "password"
    assert "name" not in key
