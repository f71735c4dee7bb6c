"""The register of authorities and device certificates: who is found, who is refused and why, and that all of it outlives a restart."""

import asyncio
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.auth import client_certificates as module
from gateway.auth.client_certificates import ClientCertificates, State
from gateway.auth.shelf import ShelfFull
from gateway.auth.x509 import CertificateRefused
from streams.memory.store import MemoryStore
from tests.support.certificates import Authority, signed_with_sha1

NOW = time.time_ns() // 1_000_000


class Site:
    def __init__(self, folder):
        self.folder = folder
        self.store = MemoryStore()
        self.certificates = ClientCertificates(self.store, "code")
        self.authority = Authority(folder)

    async def register(self, authority=None, name="factory"):
        authority = authority or self.authority
        return await self.certificates.register(name, authority.pem, authority.verification("code"), NOW)

    async def admit(self, pair):
        """First connect of a device; its serial number."""
        holder = self.certificates.find(pair.der, NOW)
        assert not isinstance(holder, str), holder
        assert await self.certificates.admit(holder, NOW)
        return holder.key.partition("/")[2]

    async def reload(self):
        self.certificates = ClientCertificates(self.store, "code")
        await self.certificates.load()


@pytest.fixture
async def site(tmp_path):
    made = Site(tmp_path)
    await made.certificates.load()
    return made


async def test_a_device_is_known_by_its_authority_and_its_common_name(site):
    await site.register()
    pair = site.authority.issue("d1", client=True)
    holder = site.certificates.find(pair.der, NOW)
    assert (holder.principal, holder.name) == ("cert:factory/d1", "d1")
    assert holder.key.startswith(site.authority.serial + "/")
    assert site.certificates.devices("", 0, 9, NOW) == ([], 0)
    serial = await site.admit(pair)
    await site.reload()
    again = site.certificates.find(pair.der, NOW)
    assert (again.principal, again.fresh) == (holder.principal, None)
    [device], total = site.certificates.devices(site.authority.serial, 0, 9, NOW)
    assert (device.serial, device.name, device.content, device.state, total) == (serial, "d1", pair.der, State.ACTIVE, 1)
    assert site.certificates.devices("ff", 0, 9, NOW) == ([], 0)


async def test_what_no_registered_authority_has_issued_is_nobody(site, tmp_path):
    other = Authority(tmp_path, "other", subject="authority")
    below = Authority(tmp_path, "below", of=site.authority)
    device, of_below = other.issue("d1", client=True), below.issue("d2", client=True)
    assert site.certificates.find(device.der, NOW) is None
    await site.register()
    for der in (device.der, of_below.der, b"", b"\x30\x00", b"x" * 500):
        assert site.certificates.find(der, NOW) is None
    await site.register(below, "below")
    assert site.certificates.find(of_below.der, NOW).principal == "cert:below/d2"


@pytest.mark.slow
async def test_a_signature_with_sha_1_is_none(site, tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    authority = Authority(tmp_path, "strong", key=key)
    await site.register(authority)
    der = authority.issue("d1", client=True).der
    assert site.certificates.find(der, NOW).name == "d1"
    assert site.certificates.find(signed_with_sha1(der, key), NOW) is None


async def test_who_has_no_name_or_no_time_is_refused(site):
    await site.register()
    assert site.certificates.find(site.authority.issue("n", client=True, common_names=["a", "b"]).der, NOW) == "certificate without one common name"
    assert site.certificates.find(site.authority.issue("old", client=True, expired=True).der, NOW) == "expired certificate"


async def test_a_serial_number_is_of_one_certificate(site):
    await site.register()
    await site.admit(site.authority.issue("d1", client=True, serial=5))
    assert site.certificates.find(site.authority.issue("d1", client=True, serial=5).der, NOW) == "serial number of another certificate"


@pytest.mark.parametrize("reloaded", [False, True])
async def test_an_authority_is_inactive_and_active_again(site, reloaded):
    serial = (await site.register()).serial
    pair = site.authority.issue("d1", client=True)
    key = site.certificates.find(pair.der, NOW).key
    await site.admit(pair)
    assert site.certificates.is_current(key)
    assert site.certificates.is_known("cert:factory/d1")
    for active in (False, True):
        before = site.certificates.version
        assert await site.certificates.set_authority(serial, active=active)
        assert site.certificates.version > before
        if reloaded:
            await site.reload()
        assert site.certificates.is_current(key) is active
        assert site.certificates.is_known("cert:factory/d1") is active
        assert isinstance(site.certificates.find(pair.der, NOW), str) is not active
        assert site.authority.pem in site.certificates.trusted
    assert not await site.certificates.set_authority("ff", active=True)


async def test_a_deleted_authority_takes_its_certificates_along(site):
    serial = (await site.register()).serial
    pair, refused = site.authority.issue("d1", client=True), site.authority.issue("d2", client=True)
    await site.admit(pair)
    await site.certificates.set_device(serial, await site.admit(refused), active=False)
    assert await site.certificates.delete_authority(serial)
    assert not await site.certificates.delete_authority(serial)
    assert site.certificates.trusted == ""
    assert site.certificates.authorities(0, 9) == ([], 0)
    assert site.certificates.devices("", 0, 9, NOW) == ([], 0)
    assert site.certificates.find(pair.der, NOW) is None
    assert not site.certificates.is_known("cert:factory/d1")
    await site.register()
    assert site.certificates.find(pair.der, NOW).fresh is not None
    assert site.certificates.find(refused.der, NOW) == "deleted certificate"


@pytest.mark.parametrize("reloaded", [False, True])
async def test_a_certificate_is_inactive_and_active_again(site, reloaded):
    authority = (await site.register()).serial
    pair = site.authority.issue("d1", client=True)
    serial = await site.admit(pair)
    for active in (False, True):
        before = site.certificates.version
        assert await site.certificates.set_device(authority, serial, active=active)
        assert site.certificates.version > before
        if reloaded:
            await site.reload()
        assert site.certificates.is_current(f"{authority}/{serial}") is active
        assert site.certificates.is_known("cert:factory/d1") is active
        assert (site.certificates.find(pair.der, NOW) == "inactive certificate") is not active
    assert not await site.certificates.set_device(authority, "ff", active=False)


async def test_a_deleted_certificate_does_not_register_itself_again(site):
    authority = (await site.register()).serial
    pair = site.authority.issue("d1", client=True)
    serial = await site.admit(pair)
    assert await site.certificates.delete_device(authority, serial)
    await site.reload()
    assert site.certificates.find(pair.der, NOW) == "deleted certificate"
    assert site.certificates.device(authority, serial) is None
    assert not await site.certificates.delete_device(authority, serial)
    assert not await site.certificates.set_device(authority, serial, active=False)
    assert await site.certificates.set_device(authority, serial, active=True)
    assert await site.admit(pair) == serial
    [document] = [document for (kind, _), document in site.store._state.documents.items() if kind == "device certificate"]
    assert 0 < document.expires_at - NOW < 11 * 86_400_000, "kept no longer than the certificate is valid"


async def test_a_device_that_was_refused_comes_back_with_a_new_certificate(site):
    authority = (await site.register()).serial
    old, new = site.authority.issue("d1", client=True), site.authority.issue("d1", client=True)
    await site.certificates.delete_device(authority, await site.admit(old))
    assert not site.certificates.is_known("cert:factory/d1")
    before = site.certificates.version
    await site.admit(new)
    assert site.certificates.is_known("cert:factory/d1")
    assert site.certificates.version > before, "plans that left the device out are derived anew"


async def test_registering_itself_disturbs_nobody(site):
    await site.register()
    before = site.certificates.version
    assert site.certificates.is_known("cert:factory/d1")
    await site.admit(site.authority.issue("d1", client=True))
    assert site.certificates.version == before


async def test_two_first_connects_at_once_register_once(site, monkeypatch):
    commit = site.store.commit

    async def slowly(changes):
        await asyncio.sleep(0)
        return await commit(changes)

    await site.register()
    holder = site.certificates.find(site.authority.issue("d1", client=True).der, NOW)
    monkeypatch.setattr(site.store, "commit", slowly)
    assert sorted(await asyncio.gather(*(site.certificates.admit(holder, NOW) for _ in range(2)))) == [False, True]
    assert site.certificates._holders == {"cert:factory/d1": [0, 1]}


async def test_a_device_that_is_refused_meanwhile_is_not_admitted(site):
    authority = (await site.register()).serial
    pair = site.authority.issue("d1", client=True)
    fresh = site.certificates.find(pair.der, NOW)
    await site.certificates.set_device(authority, await site.admit(pair), active=False)
    assert not await site.certificates.admit(fresh, NOW)


async def test_what_has_expired_makes_room(site, monkeypatch):
    monkeypatch.setattr(module, "MAX_DEVICES", 2)
    site.certificates = ClientCertificates(site.store, "code")
    await site.register()
    for name in ("d1", "d2"):
        await site.admit(site.authority.issue(name, client=True))
    holder = site.certificates.find(site.authority.issue("d3", client=True).der, NOW)
    with pytest.raises(ShelfFull):
        await site.certificates.admit(holder, NOW)
    assert await site.certificates.admit(holder, NOW + 20 * 86_400_000)
    assert site.certificates.devices("", 0, 9, NOW)[1] == 1


async def test_a_renewed_authority_of_the_same_name_keeps_its_devices_names(site, tmp_path):
    await site.register()
    renewed = Authority(tmp_path, "renewed")
    await site.register(renewed)
    assert site.certificates.find(renewed.issue("d1", client=True).der, NOW).principal == "cert:factory/d1"
    await site.certificates.set_authority(site.authority.serial, active=False)
    assert site.certificates.is_known("cert:factory/d1")


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "a*", "a\nb", "a\x00"])
async def test_a_bad_name_is_refused(site, name):
    with pytest.raises(CertificateRefused) as refused:
        await site.register(name=name)
    assert refused.value.part == "name"
    assert len(site.certificates) == 0


async def test_what_cannot_be_registered_changes_nothing(site, tmp_path):
    for content, verification, part in (
        ("x", site.authority.verification("code"), "ca"),
        (site.authority.pem, site.authority.verification("other"), "verification"),
        (site.authority.pem, Authority(tmp_path, "other").verification("code"), "verification"),
    ):
        with pytest.raises(CertificateRefused) as refused:
            await site.certificates.register("factory", content, verification, NOW)
        assert refused.value.part == part
    assert site.store._state.documents == {}
    await site.register()
    with pytest.raises(CertificateRefused, match="registered already") as refused:
        await site.register(Authority(tmp_path, "twin", serial=int(site.authority.serial, 16)))
    assert refused.value.exists


async def test_authorities_come_in_pages(site, tmp_path):
    for number in range(3):
        await site.register(Authority(tmp_path, f"a{number}", serial=number + 1), f"f{number}")
    page, total = site.certificates.authorities(1, 1)
    assert ([authority.serial for authority in page], total) == (["02"], 3)
    assert site.certificates.authority("02").name == "f1"
    assert site.certificates.authority("04") is None


async def test_another_node_sees_each_change_of_what_is_refused_and_no_other(site):
    """Whose ``version`` grows has all rights looked at again, which is dear."""
    await site.register()
    other = ClientCertificates(site.store, "code")
    await other.load()

    async def is_news():
        before = other.version
        await other.load()
        assert other._holders == site.certificates._holders
        assert other._digests == site.certificates._digests
        return other.version > before

    serial = await site.admit(site.authority.issue("d1", client=True))
    assert not await is_news()
    assert not await is_news()
    for active in (False, True, False):
        await site.certificates.set_device(site.authority.serial, serial, active=active)
        assert await is_news()
    assert not other.is_known("cert:factory/d1")
    await site.admit(site.authority.issue("d1", client=True))
    assert await is_news(), "d1 is there again, with a new certificate"
    assert other.is_known("cert:factory/d1")
    for active in (True, False):
        await site.certificates.set_device(site.authority.serial, serial, active=active)
        assert await is_news(), "connections made with this certificate end, though d1 has another one"
    await site.certificates.delete_device(site.authority.serial, serial)
    await site.certificates.set_authority(site.authority.serial, active=False)
    assert await is_news()
    assert not other.is_known("cert:factory/d1")


async def test_a_certificate_that_is_read_from_the_store_while_it_registers_itself_counts_once(site, monkeypatch):
    await site.register()
    commit = site.store.commit

    async def commit_and_read(changes):
        done = await commit(changes)
        await site.certificates.load()
        return done

    monkeypatch.setattr(site.store, "commit", commit_and_read)
    await site.admit(site.authority.issue("d1", client=True))
    assert site.certificates._holders == {"cert:factory/d1": [0, 1]}
