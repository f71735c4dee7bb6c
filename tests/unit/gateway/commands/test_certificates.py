"""The commands `authority` and `certificate` against a gateway's HTTP side."""

import json
import time

from gateway.commands import certificates as module
from tests.support.certificates import Authority
from tests.unit.gateway.commands.test_commands import site

__all__ = ["site"]

NOW = time.time_ns() // 1_000_000


async def register(site, authority, name="factory"):
    code = (await site.run("authority", "code"))[1].strip()
    proof = site.data / "verification.txt"
    proof.write_text(authority.verification(code))
    return await site.run("authority", "register", name, str(authority.path), str(proof))


async def test_an_authority_from_beginning_to_end(site):
    authority = Authority(site.data)
    serial = authority.serial
    assert await register(site, authority) == (0, f"authority {serial} is registered\n", "")
    code, out, _ = await site.run("authority", "list")
    assert (code, out.split()[:3], out.split()[-1]) == (0, [serial, "active", "until"], "factory")
    assert authority.pem in (await site.run("authority", "show", serial))[1]
    assert await site.run("authority", "deactivate", serial) == (0, f"{serial} is inactive\n", "")
    assert "inactive" in (await site.run("authority", "list"))[1]
    assert json.loads((await site.run("authority", "activate", serial, "--json"))[1]) == {"serial": serial, "activated": True}
    assert await site.run("authority", "delete", serial) == (0, f"{serial} is deleted\n", "")
    assert await site.run("authority", "delete", serial) == (1, "", "sluiceway: there is no authority of this serial number\n")
    assert await site.run("authority", "list") == (0, "", "")


async def test_certificates_are_listed_page_by_page_and_changed(site, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)
    authority, register_ = Authority(site.data), site.services.certificates
    await register(site, authority)
    for number in range(3):
        await register_.admit(register_.find(authority.issue(f"d{number}", client=True, serial=number + 1).der, NOW), NOW)
    _, out, _ = await site.run("certificate", "list", "--authority", authority.serial)
    assert [line.split()[1] for line in out.splitlines()] == ["01", "02", "03"]
    assert len(json.loads((await site.run("certificate", "list", "--json"))[1])["certificates"]) == 3
    assert await site.run("certificate", "list", "--authority", "ff") == (0, "", "")
    named = (authority.serial, "02")
    assert "BEGIN CERTIFICATE" in (await site.run("certificate", "show", *named))[1]
    assert (await site.run("certificate", "deactivate", *named))[1] == "02 is inactive\n"
    assert (await site.run("certificate", "activate", *named))[1] == "02 is active\n"
    assert (await site.run("certificate", "delete", *named))[1] == "02 is deleted\n"
    code, _, err = await site.run("certificate", "show", *named)
    assert (code, err) == (1, "sluiceway: there is no certificate of this authority and serial number\n")


async def test_what_is_wrong_is_one_line(site):
    authority = Authority(site.data)
    code, _, err = await register(site, authority, "a/b")
    assert code == 1
    assert err.startswith("sluiceway: name must have 1 to 64 printable characters")
    missing = await site.run("authority", "register", "x", str(site.data / "none"), str(authority.path))
    assert missing == (1, "", f"sluiceway: {site.data}/none can't be read: No such file or directory\n")
    (site.data / "binary").write_bytes(b"\xff")
    assert "not a PEM file" in (await site.run("authority", "register", "x", str(site.data / "binary"), str(authority.path)))[2]
