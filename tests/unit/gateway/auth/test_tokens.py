"""Tokens: what is in them, what is not taken and under which code, and that nobody but the installation makes one."""

import base64
import random

import pytest

from gateway.auth.keys import open_keyring
from gateway.auth.tokens import MAX_LIFE_MS, Mint, ShownTokens, Token, TokenFault, TokenRefused, open_mint
from schemas.reasons import ReasonCode
from streams.memory.store import MemoryStore

NOW = 1_700_000_000_000
HOUR = 3_600_000


class Site:
    def __init__(self, store, keyring, mint, key):
        self.store, self.keyring, self.mint, self.key = store, keyring, mint, key

    def apply(self, resources=("a/b", "c/#"), actions="R", expires=NOW + HOUR):
        return self.mint.apply(self.key, resources, actions, expires, NOW)

    def read(self, text, now=NOW):
        return self.mint.read(text, now)


@pytest.fixture
async def site(tmp_path):
    store = MemoryStore()
    keyring = await open_keyring(store, tmp_path / "seal.key", "mqtt-sw-test")
    return Site(store, keyring, await open_mint(store, keyring), (await keyring.create("device", 0)).id)


@pytest.mark.parametrize(("actions", "kind"), [("R", "R"), ("W", "W"), ("R,W", "RW"), ("W,R", "RW")])
async def test_a_token_is_what_was_applied_for(site, actions, kind):
    token = site.read(site.apply(actions=actions))
    assert token == Token(token.id, site.key, "mqtt-sw-test", kind, ("a/b", "c/#"), NOW + HOUR)


async def test_two_tokens_are_never_the_same(site):
    assert site.apply() != site.apply()


async def test_a_token_is_for_url_password_and_json(site):
    text = site.apply(resources=[f"parent/{n}/ü" for n in range(50)])
    assert "|" not in text
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()


async def test_a_token_of_a_hundred_like_resources_fits_a_password(site):
    text = site.apply(resources=[f"GID-plant/line-{n:03}/machine/state" for n in range(100)])
    assert len(text) < 1500
    assert len(site.read(text).resources) == 100


async def test_a_life_over_30_days_is_cut_without_a_word(site):
    assert site.read(site.apply(expires=NOW + 10 * MAX_LIFE_MS)).expires == NOW + MAX_LIFE_MS


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"resources": []}, "Resources"),
        ({"resources": [""]}, "Resources"),
        ({"resources": ["a/#/b"]}, "Resources"),
        ({"resources": ["$SYS/a"]}, "Resources"),
        ({"resources": ["$share/g/a"]}, "Resources"),
        ({"resources": [f"a/{n}" for n in range(101)]}, "Resources"),
        ({"resources": [random.Random(n).randbytes(30).hex() for n in range(100)]}, "Resources"),
        ({"actions": ""}, "Actions"),
        ({"actions": "RW"}, "Actions"),
        ({"actions": "r"}, "Actions"),
        ({"expires": NOW + 59_999}, "ExpireTime"),
        ({"expires": 0}, "ExpireTime"),
    ],
)
async def test_what_cant_be_applied_for_names_its_parameter(site, fields, blamed):
    with pytest.raises(TokenRefused) as refused:
        site.apply(**fields)
    assert refused.value.field == blamed


async def test_a_token_ends(site):
    text = site.apply()
    assert isinstance(site.read(text, NOW + HOUR - 1), Token)
    assert site.read(text, NOW + HOUR) is TokenFault.EXPIRED


async def test_a_token_of_a_revoked_key_is_none(site):
    text = site.apply()
    await site.keyring.revoke(site.key)
    assert site.read(text) is TokenFault.ACCOUNT


async def test_revocation_is_stored_until_the_token_ends_and_swept_then(site):
    text, other = site.apply(), site.apply()
    await site.mint.revoke(site.mint.open(text), NOW)
    assert site.read(text) is TokenFault.REVOKED
    again = await open_mint(site.store, site.keyring)
    assert again.read(text, NOW) is TokenFault.REVOKED
    assert isinstance(again.read(other, NOW), Token)
    swept = await site.store.sweep(NOW + HOUR, entries_per_box=1, entries_total=1, entry_age=1, limit=9)
    assert swept.expired_documents == 1
    await site.mint.revoke(site.mint.open(other), NOW + HOUR)
    assert await site.store.documents("revoked token", "", 9) == []
    assert len(site.mint._revoked) == 0


@pytest.mark.slow
async def test_ten_thousand_mutations_of_a_token_are_refused(site):
    text, chance = site.apply(actions="R,W"), random.Random(5)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for _ in range(10_000):
        at = chance.randrange(len(text))
        changed = chance.choice((text[:at] + chance.choice(alphabet) + text[at + 1 :], text[:at] + text[at + 1 :], text[:at], text + "A" * 4))
        if base64.urlsafe_b64decode(changed + "=" * (-len(changed) % 4) if len(changed) % 4 != 1 else "") == base64.urlsafe_b64decode(
            text + "=" * (-len(text) % 4)
        ):
            continue  # the last character has bits that say nothing
        assert site.read(changed) in (TokenFault.FORGED, TokenFault.SIGNATURE), changed


@pytest.mark.parametrize("text", ["", "A", "=", "ü", "\x00", "a b", "A" * 5000, "QUFB", "+/+/", "A" * 44])
async def test_what_is_no_token_is_forged(site, text):
    assert site.read(text) is TokenFault.FORGED


async def test_what_has_the_form_of_a_token_and_another_signature_is_told_so(site):
    text = site.apply()
    signed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for content, fault in (
        (signed[:-1] + bytes((signed[-1] ^ 1,)), TokenFault.SIGNATURE),
        (signed[:5] + bytes((signed[5] ^ 1,)) + signed[6:], TokenFault.SIGNATURE),
        (signed[:1] + signed[2:], TokenFault.SIGNATURE),
        (b"\x02junk" + signed[-32:], TokenFault.SIGNATURE),
        (b"\x03" + signed[1:], TokenFault.FORGED),
        (b"\x01" + signed[-32:], TokenFault.FORGED),
        (signed[-32:], TokenFault.FORGED),
    ):
        assert site.read(base64.urlsafe_b64encode(content).rstrip(b"=").decode()) is fault, content


async def test_a_token_of_another_installation_has_another_signature(site, tmp_path):
    other = MemoryStore()
    (tmp_path / "other").mkdir()
    keyring = await open_keyring(other, tmp_path / "other" / "seal.key", "mqtt-sw-test")
    assert site.read((await open_mint(other, keyring)).apply(site.key, ["a"], "R", NOW + HOUR, NOW)) is TokenFault.SIGNATURE


async def test_a_token_of_another_instance_of_the_installation_does_not_match(site):
    text = Mint(site.store, site.keyring, site.mint._secret).apply(site.key, ["a"], "R", NOW + HOUR, NOW)
    site.keyring.instance_id = "mqtt-sw-new"
    assert site.read(text) is TokenFault.RESOURCE


class TestPassword:
    async def test_one_a_type_in_any_order(self, site):
        r, w, rw = site.apply(actions="R"), site.apply(actions="W"), site.apply(actions="R,W")
        for password in (f"R|{r}", f"W|{w}", f"RW|{rw}", f"R|{r}|W|{w}", f"W|{w}|R|{r}", f"RW|{rw}|R|{r}|W|{w}"):
            shown = site.mint.read_password(password, site.key, NOW)
            assert isinstance(shown, ShownTokens)
            assert sorted(shown.by_type) == sorted(password.split("|")[0::2])

    @pytest.mark.parametrize("form", ["", "R", "R|", "{r}", "R|{r}|W", "R|{r}|R|{r}", "r|{r}", "X|{r}", "W|R|{r}", "R|{r}|W|x", "R|{r}|"])
    async def test_what_has_another_form_is_forged(self, site, form):
        assert site.mint.read_password(form.format(r=site.apply()), site.key, NOW) is TokenFault.FORGED

    async def test_one_bad_token_spoils_all(self, site):
        r, w = site.apply(actions="R"), site.apply(actions="W", expires=NOW + 60_000)
        assert site.mint.read_password(f"R|{r}|W|{w}", site.key, NOW + 60_000) is TokenFault.EXPIRED
        assert site.mint.read_password(f"W|{r}", site.key, NOW) is TokenFault.ACTION
        other = (await site.keyring.create("device", 0)).id
        assert site.mint.read_password(f"R|{r}", other, NOW) is TokenFault.ACCOUNT


def shown(**resources):
    return ShownTokens(Token(b"", "k", "i", kind, tuple(found.split()), 0) for kind, found in resources.items())


@pytest.mark.parametrize(
    ("tokens", "action", "subject", "covered"),
    [
        (shown(R="a/#"), "read", "a/b", True),
        (shown(R="a/#"), "read", "b", False),
        (shown(R="a/#"), "subscribe", "a/+/c", True),
        (shown(R="a/+"), "subscribe", "a/#", False),
        (shown(R="a/b c"), "read", "c", True),
        (shown(R="a/#"), "publish", "a/b", False),
        (shown(W="a/#"), "publish", "a/b", True),
        (shown(W="a/#"), "read", "a/b", False),
        (shown(RW="a/#"), "publish", "a/b", True),
        (shown(RW="a/#"), "read", "a/b", True),
        (shown(R="a/#", W="b/#"), "publish", "a/b", False),
        (shown(), "read", "a", False),
    ],
)
def test_what_tokens_cover(tokens, action, subject, covered):
    assert tokens.covers(action, subject) is covered


def test_the_faults_are_the_products_codes():
    assert {fault.name: int(fault) for fault in TokenFault} == {
        "FORGED": 1, "EXPIRED": 2, "REVOKED": 3, "RESOURCE": 4, "ACTION": 5, "SIGNATURE": 8, "ACCOUNT": -1,
    }  # fmt: skip
    assert TokenRefused.reason_code == ReasonCode.NOT_AUTHORIZED
