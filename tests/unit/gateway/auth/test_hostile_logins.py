"""Five thousand mutated MQTT logins, of which none is admitted: signatures, device credentials, identities, tokens and JWTs.

What is left out is left out by an argument. A login is a function of user name, client id and password to the byte, so any other three are
another login. Two secrets are one key of HMAC where RFC 2104 makes the same block of them. Two texts of a token or a JWT are the same where
their base64 decodes to the same bytes. Every hundredth login is the right one, which is admitted: the others are not refused for another cause.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.auth.keys import open_keyring
from gateway.auth.login import LoginRefused, Peer, sign
from gateway.auth.registers import open_registers
from schemas.identities import Principal
from schemas.settings import JwtSettings, Settings
from streams.memory.store import MemoryStore
from tests.support.mutations import PLAN, Draw, key_block, other_secret

LOCAL = Peer("127.0.0.1:5", True, False)
NOW = 1_700_000_000_000
CLIENT = "GID_test@@@0001"
INSTANCE = "mqtt-sw-test"
JWT_KEY = ECKey.generate_key("P-256", {"kid": "ec"})


class Site:
    """Every login mode at once, so that a mutation has every door to try."""

    def __init__(self, store, registers, settings):
        self.store, self.registers = store, registers
        self.authenticator = registers.authenticator(settings)
        self.tried = 0
        self.admitted = []

    def login(self, user, password, client=CLIENT):
        return self.authenticator.login(user, password, client, LOCAL, NOW)

    def attack(self, right, wrong):
        """``wrong`` must be refused; now and then ``right`` must not."""
        if self.tried % 100 == 0:
            assert isinstance(self.login(*right), Principal), right
        assert wrong != right
        self.tried += 1
        outcome = self.login(*wrong)
        if not isinstance(outcome, LoginRefused):
            self.admitted.append(wrong)


@pytest.fixture
async def site(tmp_path):
    store, keys = MemoryStore(), tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [JWT_KEY.as_dict(private=False)]}))
    settings = Settings(jwt=JwtSettings(keys=keys))
    keyring = await open_keyring(store, tmp_path / "seal.key", INSTANCE)
    return Site(store, await open_registers(store, keyring, settings), settings)


def raw(text: str) -> bytes:
    """As bytes of a CONNECT; what can't be UTF-8 is sent all the same."""
    return text.encode(errors="surrogatepass")


def signed_otherwise(draw: Draw, secret: str, user: str, client: str) -> bytes:
    """The right secret and the right client id, and not their signature."""
    key, text = secret.encode(), client.encode()
    group, _, device = client.partition("@@@")
    digest = hmac.digest(key, text, "sha1")
    return draw.choice(
        (
            sign(text, secret),
            sign(key, group),
            sign(key, device),
            sign(key, user),
            sign(key, client + "\n"),
            sign(key, client.lower()),
            sign(key, ""),
            base64.b64encode(hmac.digest(key, text, "sha256")),
            base64.b64encode(hmac.digest(key, text, "sha256")[:20]),
            base64.b64encode(hmac.digest(key, text, "md5")),
            base64.b64encode(hashlib.sha1(key + text).digest()),  # noqa: S324 - to be refused
            base64.b64encode(hmac.digest(key + b"&", text, "sha1")),
            base64.b64encode(sign(key, client)),
            digest.hex().encode(),
            digest,
            secret.encode(),
            text,
            b"",
        )
    )


def mutated(draw: Draw, secret: str, right: tuple[str, bytes, str]) -> tuple[str, bytes, str]:
    """Another login than the right one, by somebody who has the secret in no case."""
    user, password, client = right
    way = draw.randrange(8)
    if way < 3:
        return user, raw(draw.changed(password.decode())), client
    if way == 3:
        return user, sign(other_secret(draw, secret).encode(), client), client
    if way == 4:
        return user, signed_otherwise(draw, secret, user, client), client
    if way == 5:
        return user, password, draw.changed(client)
    fields = user.split("|")
    if way == 6 and len(fields) == 3:
        at = draw.randrange(3)
        fields[at] = draw.changed(fields[at])
        if draw.random() < 0.2:
            fields = draw.other(lambda: draw.sample(fields, 3), user.split("|"))
        return "|".join(fields), password, client
    return draw.changed(user), password, client


def finish(site: Site, name: str) -> None:
    assert site.admitted == []
    assert site.tried == PLAN[name]


async def test_no_mutated_signature_logs_in(site):
    draw = Draw(20_201)
    key, other = await site.registers.keyring.create("device", 0), await site.registers.keyring.create("device", 0)
    secret = key.secret.reveal()
    right = f"Signature|{key.id}|{INSTANCE}", sign(secret.encode(), CLIENT), CLIENT
    for wrong in (
        (f"Signature|{other.id}|{INSTANCE}", right[1], CLIENT),
        (right[0], sign(other.secret.reveal().encode(), CLIENT), CLIENT),
        (f"Token|{key.id}|{INSTANCE}", right[1], CLIENT),
        (f"DeviceCredential|{key.id}|{INSTANCE}", right[1], CLIENT),
        (right[0], None, CLIENT),
        (None, right[1], CLIENT),
    ):
        site.attack(right, wrong)
    while site.tried < PLAN["Signature"]:
        site.attack(right, draw.other(lambda: mutated(draw, secret, right), right))
    finish(site, "Signature")


async def test_no_mutated_device_credential_logs_in(site):
    draw = Draw(20_202)
    credential = await site.registers.devices.register(CLIENT, 0)
    await site.registers.devices.register("GID_test@@@0002", 0)
    secret = credential.secret.reveal()
    right = f"DeviceCredential|{credential.key_id}|{INSTANCE}", sign(secret.encode(), CLIENT), CLIENT
    while site.tried < PLAN["DeviceCredential"]:
        wrong = draw.other(lambda: mutated(draw, secret, right), right)
        site.attack(right, (*wrong[:2], draw.choice((wrong[2], "GID_test@@@0002"))))
    finish(site, "DeviceCredential")


async def test_no_mutated_login_of_a_custom_identity_is_admitted(site):
    draw = Draw(20_203)
    identities = site.registers.identities
    secret = "pass-Word/5+é"
    await identities.add("reader", "CLIENT", CLIENT, secret, "ORIGIN")
    await identities.add("signer", "CLIENT", CLIENT, secret, "SIGNED")
    rights = ("reader", secret.encode(), CLIENT), ("signer", sign(secret.encode(), CLIENT), CLIENT)
    while site.tried < PLAN["identity"]:
        right = rights[site.tried // 100 % 2]
        # The one's password is not what ``mutated`` makes of a secret, which is the password itself
        wrong = draw.other(lambda: mutated(draw, secret, right), right)  # noqa: B023 - called at once
        if wrong not in rights:
            site.attack(right, wrong)
    finish(site, "identity")


def token_bytes(text: str) -> bytes | None:
    """What a token decodes to, in either alphabet and with or without padding: its base64 form carries nothing else."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


async def test_no_mutated_token_logs_in(site):
    draw, mint = Draw(20_204), site.registers.mint
    key = await site.registers.keyring.create("device", 0)
    other = await site.registers.keyring.create("device", 0)
    token = mint.apply(key.id, ["plant/#", "line/+"], "R", NOW + 3_600_000, NOW)
    of_other = mint.apply(other.id, ["plant/#"], "R", NOW + 3_600_000, NOW)
    user = f"Token|{key.id}|{INSTANCE}"
    right = user, f"R|{token}".encode(), CLIENT
    content = token_bytes(token)
    forms = ["{}", "R|", "R|{}|", "|{}", "RW|{}", "W|{}", "r|{}", "R|{}|R|{}", "R|{}|W|{}", "R,W|{}", "{}|R", "R {}", "R|{}|W|", "R||{}"]
    while site.tried < PLAN["token"]:
        way = draw.randrange(4)
        if way == 0:
            site.attack(right, (user, draw.choice(forms).replace("{}", token).encode(), CLIENT))
        elif way == 1:
            wrong = draw.choice((f"Token|{other.id}|{INSTANCE}", f"Signature|{key.id}|{INSTANCE}", f"Token|{key.id}|", user + "x", "Token", token))
            site.attack(right, (wrong, right[1], CLIENT))
        elif way == 2:
            body = bytearray(content or b"")
            body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)
            site.attack(right, (user, b"R|" + base64.urlsafe_b64encode(body).rstrip(b"="), CLIENT))
        else:
            text = draw.choice((draw.changed(token), of_other, draw.changed(of_other)))
            if token_bytes(text) != content:
                site.attack(right, (user, b"R|" + raw(text), CLIENT))
    finish(site, "token")


def jwt_content(text: str) -> tuple[str, bytes | None]:
    """What a JWT says: header and claims are signed as they are written, and the signature is its bytes."""
    head, _, signature = text.rpartition(".")
    return head, token_bytes(signature)


async def test_no_mutated_jwt_logs_in(site):
    draw = Draw(20_205)
    header = {"alg": "ES256", "kid": "ec"}
    claims = {"sub": "alice", "exp": NOW / 1000 + 60, "client_id": CLIENT}
    text = jwt.encode(header, claims, JWT_KEY, algorithms=["ES256"])
    right = "alice", text.encode(), CLIENT
    stranger = ECKey.generate_key("P-256", {"kid": "ec"})
    parts = text.split(".")
    while site.tried < PLAN["jwt"]:
        way = draw.randrange(4)
        if way == 0:
            wrong = jwt.encode(header, claims, stranger, algorithms=["ES256"])
        elif way == 1:
            changed = json.dumps(claims | {draw.choice(("sub", "exp", "client_id", "acl", "admin")): draw.choice(("bob", NOW, {}, True))}).encode()
            wrong = ".".join((parts[0], base64.urlsafe_b64encode(changed).rstrip(b"=").decode(), parts[2]))
        elif way == 2:
            changed = json.dumps({"alg": draw.choice(("none", "None", "HS256", "ES384", "RS256", "", None)), "kid": "ec"}).encode()
            wrong = ".".join((base64.urlsafe_b64encode(changed).rstrip(b"=").decode(), parts[1], draw.choice((parts[2], ""))))
        else:
            at = draw.randrange(3)
            wrong = ".".join((*parts[:at], draw.changed(parts[at]), *parts[at + 1 :]))
        if jwt_content(wrong) != jwt_content(text):
            site.attack(right, ("alice", raw(wrong), draw.choice((CLIENT, CLIENT, "other"))))
    finish(site, "jwt")


async def test_what_was_left_out_is_the_same_and_is_admitted(site):
    """The exclusions above, shown to be equal: were they mutations, they would be admitted ones."""
    mint = site.registers.mint
    key = await site.registers.keyring.create("device", 0)
    secret, user = key.secret.reveal(), f"Signature|{key.id}|{INSTANCE}"
    assert key_block(secret + "\x00") == key_block(secret)
    assert isinstance(site.login(user, sign(secret.encode() + b"\x00", CLIENT)), Principal)
    text = next(t for n in range(64) if (t := mint.apply(key.id, [f"r{n}"], "R", NOW + 3_600_000, NOW)) and len(t) % 4 and "-" in t)
    spelled = text.replace("-", "+") + "=" * (-len(text) % 4)
    assert spelled != text
    assert token_bytes(spelled) == token_bytes(text)
    assert isinstance(site.login(f"Token|{key.id}|{INSTANCE}", f"R|{spelled}".encode()), Principal)
