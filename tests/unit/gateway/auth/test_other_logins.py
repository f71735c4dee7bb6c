"""Device credentials, custom identities, rotated keys and failure budgets: who comes in, as whom, and that guessing costs the same."""

import random
import statistics
import time

import pytest

from gateway.auth.budgets import MAX_KEPT, Budgets
from gateway.auth.identities import IdentityRefused
from gateway.auth.keys import open_keyring
from gateway.auth.login import LoginRefused, Peer, sign, signature_user_name
from gateway.auth.registers import open_registers
from gateway.auth.shelf import ShelfFull
from schemas.identities import Principal
from schemas.reasons import ReasonCode
from schemas.settings import Settings
from streams.memory.store import MemoryStore

LOCAL = Peer("127.0.0.1:5", True, False)
CLIENT = "GID_test@@@d1"


class Site:
    def __init__(self, store, registers):
        self.store, self.registers = store, registers
        self.authenticator = registers.authenticator(Settings())

    def login(self, user, password, client=CLIENT, now=0):
        return self.authenticator.login(user, password, client, LOCAL, now)


async def opened(store, folder):
    keyring = await open_keyring(store, folder / "seal.key", "mqtt-sw-test")
    return Site(store, await open_registers(store, keyring, Settings()))


@pytest.fixture
async def site(tmp_path):
    return await opened(MemoryStore(), tmp_path)


def refused(outcome, code=ReasonCode.BAD_USER_NAME_OR_PASSWORD):
    return isinstance(outcome, LoginRefused) and outcome.reason_code == code


# Device credentials


def device_login(site, credential, client=CLIENT, instance="mqtt-sw-test", secret=None):
    password = sign((secret or credential.secret.reveal()).encode(), client)
    return site.login(f"DeviceCredential|{credential.key_id}|{instance}", password, client)


async def test_a_device_logs_in_with_its_credential_and_is_itself(site):
    credential = await site.registers.devices.register(CLIENT, 5)
    assert credential.key_id.startswith("DC.")
    assert credential.secret.reveal().startswith("DC.")
    assert device_login(site, credential) == Principal(f"device:{CLIENT}", "device", CLIENT)


async def test_a_credential_is_for_one_client_and_instance(site):
    credential = await site.registers.devices.register(CLIENT, 5)
    assert refused(device_login(site, credential, "GID_test@@@d2"))
    assert refused(device_login(site, credential, instance="other"), ReasonCode.NOT_AUTHORIZED)
    assert refused(device_login(site, credential, secret="DC.other"))
    assert refused(site.login("DeviceCredential|DC.nobody|mqtt-sw-test", b"x"))
    assert refused(site.login(signature_user_name(credential.key_id, "mqtt-sw-test"), sign(credential.secret.reveal().encode(), CLIENT)))


async def test_the_newest_credential_is_the_valid_one(site, tmp_path):
    devices = site.registers.devices
    first = await devices.register(CLIENT, 5)
    second = await devices.register(CLIENT, 6)
    assert refused(device_login(site, first))
    third = await devices.refresh(CLIENT, 7)
    assert (third.key_id, third.created, third.updated) == (second.key_id, 6, 7)
    assert refused(device_login(site, second))
    again = await opened(site.store, tmp_path)
    assert isinstance(device_login(again, third), Principal)
    assert again.registers.devices.get(CLIENT).secret.reveal() == third.secret.reveal()
    assert await devices.unregister(CLIENT)
    assert refused(device_login(site, third))
    assert not await devices.unregister(CLIENT)
    assert await devices.refresh(CLIENT, 8) is None
    assert devices.get(CLIENT) is None


async def test_credentials_of_a_group_come_in_pages(site):
    devices = site.registers.devices
    for number in range(5):
        await devices.register(f"GID_test@@@d{number}", 0)
    await devices.register("GID_test2@@@d", 0)
    assert devices.clients("GID_test", "", 2) == (["GID_test@@@d0", "GID_test@@@d1"], 5)
    assert devices.clients("GID_test", "GID_test@@@d3", 2) == (["GID_test@@@d4"], 5)


async def test_no_secret_is_stored_in_clear(site):
    credential = await site.registers.devices.register(CLIENT, 5)
    await site.registers.identities.add("user", "USER", "", "canary-secret", "ORIGIN")
    stored = b"".join(document.body for document in site.store._state.documents.values())
    assert credential.secret.reveal().encode() not in stored
    assert b"canary-secret" not in stored


# Custom identities


@pytest.mark.parametrize("mode", ["ORIGIN", "SIGNED"])
@pytest.mark.parametrize("kind", ["USER", "CLIENT"])
async def test_an_identity_logs_in_by_its_sign_mode(site, mode, kind):
    await site.registers.identities.add("user", kind, CLIENT if kind == "CLIENT" else "", "secret", mode)
    right = b"secret" if mode == "ORIGIN" else sign(b"secret", CLIENT)
    wrong = b"secret" if mode == "SIGNED" else sign(b"secret", CLIENT)
    name = f"client:{CLIENT}" if kind == "CLIENT" else "user:user"
    assert site.login("user", right) == Principal(name, "device", CLIENT, "user")
    for password in (wrong, b"", b"secre", right + b"x", None):
        assert refused(site.login("user", password))
    assert refused(site.login("other", right))
    assert refused(site.login(None, right))
    other = site.login("user", b"secret" if mode == "ORIGIN" else sign(b"secret", "c2"), "c2")
    assert refused(other) if kind == "CLIENT" else other.name == "user:user"


async def test_a_client_identity_goes_before_a_user_identity(site):
    await site.registers.identities.add("user", "USER", "", "of user", "ORIGIN")
    await site.registers.identities.add("user", "CLIENT", CLIENT, "of client", "ORIGIN")
    assert site.login("user", b"of client").name == f"client:{CLIENT}"
    assert refused(site.login("user", b"of user"))
    assert site.login("user", b"of user", "c2").name == "user:user"


async def test_identities_change_and_go(site, tmp_path):
    identities = site.registers.identities
    await identities.add("user", "USER", "", "one", "ORIGIN")
    with pytest.raises(IdentityRefused, match="already"):
        await identities.add("user", "USER", "", "two", "ORIGIN")
    await identities.update("user", "USER", "", "two", "ORIGIN")
    assert refused(site.login("user", b"one"))
    again = await opened(site.store, tmp_path)
    assert again.login("user", b"two").name == "user:user"
    with pytest.raises(IdentityRefused, match="no such"):
        await identities.update("nobody", "USER", "", "x", "ORIGIN")
    assert await identities.delete("user", "USER", "")
    assert not await identities.delete("user", "USER", "")
    assert refused(site.login("user", b"two"))


BROKEN = [
    *(({"user": name}, "Username") for name in ("", "x" * 65, "a\x00b", "a\nb", "*", "\x7f", "Signature|a|b", "Token||", "DeviceCredential|x|y")),
    *(({"kind": kind}, "IdentityType") for kind in ("", "user", "CLIENTS", "ALL", "USER ", "GROUP", "*", "0")),
    *(({"kind": "CLIENT", "client": client}, "ClientId") for client in ("", "x" * 65, "a\x00", "\r", "*", "a\tb", "\x1b[0m")),
    *(({"secret": secret}, "Secret") for secret in ("", "x" * 257, "a\x00b", "\x00")),
    *(({"mode": mode}, "SignMode") for mode in ("", "origin", "PLAIN", "SIGNED ", "HMAC", "MD5", "NONE", "*", "SIGN", "ORIGINAL", "1", "null")),
]


def test_there_are_forty_broken_identities():
    assert len(BROKEN) >= 40


@pytest.mark.parametrize(("change", "blamed"), BROKEN)
async def test_a_broken_identity_names_its_field_and_admits_nobody(site, change, blamed):
    fields = {"user": "user", "kind": "USER", "client": "", "secret": "secret", "mode": "ORIGIN"} | change
    with pytest.raises(IdentityRefused) as found:
        await site.registers.identities.add(fields["user"], fields["kind"], fields["client"], fields["secret"], fields["mode"])
    assert found.value.field == blamed
    assert fields["secret"] not in str(found.value) or fields["secret"] in ("", "x" * 257)
    assert len(site.registers.identities) == 0
    assert refused(site.login(fields["user"], fields["secret"].encode(), fields["client"] or CLIENT))


async def test_an_identity_may_do_nothing_until_a_rule_says_so(site):
    await site.registers.identities.add("user", "USER", "", "secret", "ORIGIN")
    principal = site.login("user", b"secret")
    access = site.registers.access()
    for action in ("publish", "subscribe", "read"):
        assert not access.may(principal, action, "a")
    assert access.may(principal, "publish", "$SYS/getOfflineMsg")


async def test_blocked_clients_are_stored(site, tmp_path):
    identities = site.registers.identities
    assert await identities.block(CLIENT, 5)
    assert not await identities.block(CLIENT, 5)
    again = (await opened(site.store, tmp_path)).registers.identities
    assert again.is_blocked(CLIENT)
    assert again.blocked("", 9) == [CLIENT]
    assert await again.unblock(CLIENT)
    assert not again.is_blocked(CLIENT)
    with pytest.raises(IdentityRefused):
        await identities.block("a\x00", 5)


async def test_identities_have_a_limit(site, monkeypatch):
    monkeypatch.setattr(site.registers.identities._shelf, "_limit", 1)
    await site.registers.identities.add("one", "USER", "", "x", "ORIGIN")
    with pytest.raises(ShelfFull):
        await site.registers.identities.add("two", "USER", "", "x", "ORIGIN")


# Rotation


async def test_two_secrets_are_valid_while_a_key_is_rotated(site, tmp_path):
    keyring = site.registers.keyring
    old = await keyring.create("device", 0)
    new = await keyring.rotate(old.id, 1000, 500)
    for ring in (site, await opened(site.store, tmp_path)):
        name = signature_user_name(old.id, "mqtt-sw-test")
        first, second = sign(old.secret.reveal().encode(), CLIENT), sign(new.secret.reveal().encode(), CLIENT)
        assert ring.login(name, first, now=1499).name == old.id
        assert ring.login(name, second, now=1499).name == old.id
        assert refused(ring.login(name, first, now=1500))
        assert ring.login(name, second, now=1500).name == old.id
        assert ring.registers.keyring.is_secret_of(old.id, old.secret.reveal().encode(), 1499)
        assert not ring.registers.keyring.is_secret_of(old.id, old.secret.reveal().encode(), 1500)


async def test_a_second_rotation_ends_the_first_secret_and_a_revocation_both(site):
    keyring = site.registers.keyring
    first = await keyring.create("device", 0)
    second = await keyring.rotate(first.id, 0, 1000)
    await keyring.rotate(first.id, 0, 1000)
    assert not keyring.is_secret_of(first.id, first.secret.reveal().encode(), 1)
    assert keyring.is_secret_of(first.id, second.secret.reveal().encode(), 1)
    await keyring.revoke(first.id)
    assert not keyring.is_secret_of(first.id, second.secret.reveal().encode(), 1)
    assert await keyring.rotate(first.id, 0, 1000) is None
    assert await keyring.rotate("nobody", 0, 1000) is None


# Guessing


def welch(a, b):
    return (statistics.fmean(a) - statistics.fmean(b)) / (statistics.variance(a) / len(a) + statistics.variance(b) / len(b)) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["Signature", "DeviceCredential", "identity"])
async def test_time_does_not_tell_a_known_name_from_an_unknown_one(site, mode):
    """Welch's t over 10^4 each, interleaved; the slowest per cent, where something else ran, is left out on both sides."""
    key = await site.registers.keyring.create("device", 0)
    credential = await site.registers.devices.register(CLIENT, 0)
    await site.registers.identities.add("known", "USER", "", "secret", "ORIGIN")
    known = {"Signature": key.id, "DeviceCredential": credential.key_id, "identity": "known"}[mode]
    unknown = known[:-1] + ("a" if known[-1] != "a" else "b")
    names = [name if mode == "identity" else f"{mode}|{name}|mqtt-sw-test" for name in (known, unknown)]
    times: tuple[list[int], list[int]] = ([], [])
    chance = random.Random(7)
    for _ in range(10_000):
        password = sign(chance.randbytes(8), CLIENT)
        for side in chance.sample((0, 1), 2):
            before = time.perf_counter_ns()
            assert refused(site.login(names[side], password))
            times[side].append(time.perf_counter_ns() - before)
    cut = [sorted(side)[: len(side) * 99 // 100] for side in times]
    assert abs(welch(*cut)) < 4.5


def test_a_budget_is_spent_and_comes_back():
    budgets = Budgets(per_address=3, per_key=5)
    for second in range(3):
        assert not budgets.is_spent("a", f"k{second}", second)
        assert budgets.failed("a", f"k{second}", second) == (["address"] if second == 2 else [])
    assert budgets
    assert budgets.is_spent("a", "other", 10)
    assert not budgets.is_spent("b", "k1", 10)
    assert budgets.is_spent("a", "k", 61.9)
    assert not budgets.is_spent("a", "k", 62)
    assert not budgets


def test_a_key_has_a_budget_over_all_addresses_and_loopback_has_none_of_its_own():
    budgets = Budgets(per_address=3, per_key=5)
    for number in range(5):
        budgets.failed("127.0.0.1", "k", 0, is_loopback=True)
        assert budgets.is_spent(f"a{number}", "k", 1) is (number == 4)
    assert not budgets.is_spent("127.0.0.1", "other", 1)


def test_failures_of_another_minute_do_not_count():
    budgets = Budgets(per_address=2, per_key=0)
    for minute in range(10):
        budgets.failed("a", "k", minute * 60.0)
    assert not budgets


def test_what_is_remembered_of_failures_is_bounded():
    budgets = Budgets(per_address=2, per_key=1)
    for number in range(MAX_KEPT + 100):
        budgets.failed(f"a{number}", f"k{number}", 0)
    assert len(budgets._failures) == MAX_KEPT
    assert len(budgets._spent) == MAX_KEPT
