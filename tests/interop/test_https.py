"""HTTP over TLS: foreign clients and the program's own commands, whom they trust, and a certificate that is replaced while it serves."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.certificates import Authority, Pair
from tests.support.gateway import ROOT, Gateway, clean_environment

pytestmark = pytest.mark.slow


class Site:
    def __init__(self, gateway: Gateway, authority: Authority, pair: Pair) -> None:
        self.gateway, self.authority, self.pair = gateway, authority, pair
        self.url = f"https://{gateway.endpoints['https']}"

    def get(self, authority: Authority | None = None) -> httpx.Response:
        return httpx.get(self.url + "/healthz", verify=(authority or self.authority).client_context(), trust_env=False)

    def command(self, *arguments: str, **env: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "gateway.cli", *arguments]
        done = subprocess.run(command, env=clean_environment() | env, cwd=ROOT, capture_output=True, timeout=20, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def site(start_gateway: Callable[..., Gateway], tmp_path: Path) -> Site:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    # A client authority is for MQTT: HTTP asks for keys
    config = "[tls]\nrequire_client_certificate = true\n"
    flags = ("--tls-http", "--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key), "--tls-client-ca", str(authority.path))
    return Site(start_gateway(anonymous=True, config=config, arguments=flags), authority, pair)


def test_clients_that_trust_the_authority(site: Site, tmp_path: Path) -> None:
    assert site.get().json() == {"status": "ok"}
    with pytest.raises(httpx.ConnectError):
        site.get(Authority(tmp_path, "other"))
    with pytest.raises(httpx.HTTPError):
        httpx.get(site.url.replace("https", "http") + "/healthz", trust_env=False)


def test_a_server_name_has_its_certificate(start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("server"), authority.issue("other", dns_names=("other.example",))
    config = f'[tls]\nhttp = true\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
    config += f'[[tls.certificates]]\ncertificate = "{other.certificate}"\nkey = "{other.key}"\n'
    url = f"https://{start_gateway(anonymous=True, config=config).endpoints['https']}/healthz"
    with httpx.Client(verify=authority.client_context(), trust_env=False) as client:
        for name in ("other.example", "localhost"):
            assert client.get(url, extensions={"sni_hostname": name}).json() == {"status": "ok"}
    with httpx.Client(verify=authority.client_context(), trust_env=False) as client, pytest.raises(httpx.ConnectError, match="third.example"):
        client.get(url, extensions={"sni_hostname": "third.example"})


def test_commands_by_data_folder_and_by_url(site: Site) -> None:
    data = str(site.gateway.data)
    made = json.loads(site.gateway.run("key", "create", "--role", "manager", "--json"))
    assert site.gateway.run("pub", "-t", "a/b", "-m", "x") == ""
    by_url = {"SLUICEWAY_URL": site.url, "SLUICEWAY_ACCESS_KEY": made["accessKeyId"], "SLUICEWAY_ACCESS_SECRET": made["accessKeySecret"]}
    assert site.command("group", "create", "GID_one", "--ca-file", str(site.authority.path), **by_url) == (0, "group GID_one is there now\n")
    code, words = site.command("group", "list", **by_url)
    assert code == 1
    assert "doesn't answer" in words
    assert site.command("group", "list", "--data", data) == (0, "GID_one\n")


def test_a_command_trusts_its_own_gateway_alone(site: Site) -> None:
    file = site.gateway.data / "gateway.json"
    found: dict[str, Any] = json.loads(file.read_text())
    other = site.authority.issue("other")
    file.write_text(json.dumps(found | {"certificate": str(other.certificate)}))
    code, words = site.command("group", "list", "--data", str(site.gateway.data))
    assert code == 1
    assert "shows another certificate" in words


async def test_a_new_certificate_comes_into_force(site: Site, tmp_path: Path) -> None:
    fresh_folder = tmp_path / "fresh"
    fresh_folder.mkdir()
    fresh = Authority(fresh_folder, "fresh")
    pair = fresh.issue("server")
    for source, target in ((pair.key, site.pair.key), (pair.certificate, site.pair.certificate)):
        draft = target.with_name("draft")
        shutil.copy(source, draft)
        draft.replace(target)
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await asyncio.to_thread(site.get, fresh)).status_code == 200
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.1)
    with pytest.raises(httpx.ConnectError):
        site.get()
    assert site.command("group", "list", "--data", str(site.gateway.data)) == (0, "")
