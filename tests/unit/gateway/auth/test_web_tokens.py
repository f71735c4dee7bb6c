"""JWT login: keys in JWKS and PEM, claims that must hold, rules that a token brings, and what nobody gets in with."""

import base64
import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from gateway.auth.web_tokens import MAX_PEM_KEYS, WebTokenRefused, WebTokens, looks_like
from schemas.errors import StartError
from schemas.identities import AccessRule

NOW = 1_700_000_000_000
KEYS = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
    "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}


def sign(claims, algorithm="ES256", key=None, **header):
    key = key or KEYS[algorithm]
    header = {"alg": algorithm} | ({"kid": key.kid} if key.kid else {}) | header
    return jwt.encode({k: v for k, v in header.items() if v is not None}, claims, key, algorithms=[algorithm])


def claims(**more):
    return {"sub": "alice", "exp": NOW / 1000 + 60} | more


@pytest.fixture
def jwks(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in KEYS.values()]}))
    return path


@pytest.fixture
def tokens(jwks):
    return WebTokens(jwks, "issuer", "gateway")


def read(tokens, text, client="c1", now=NOW):
    return tokens.read(text, client, now)[:3]


def good(**more):
    return claims(iss="issuer", aud="gateway") | more


@pytest.mark.parametrize("algorithm", sorted(KEYS))
def test_a_token_of_each_kind_of_key(tokens, algorithm):
    assert read(tokens, sign(good(), algorithm)) == ("alice", (), NOW + 60_000)


@pytest.mark.parametrize("algorithm", sorted(KEYS))
def test_one_key_in_pem_needs_no_key_id(tmp_path, algorithm):
    path = tmp_path / "key.pem"
    path.write_bytes(KEYS[algorithm].as_pem(private=False))
    text = sign(claims(), algorithm, kid=None)
    assert read(WebTokens(path), text)[0] == "alice"


def pem(tmp_path, *keys):
    path = tmp_path / "keys.pem"
    path.write_bytes(b"".join(key.as_pem(private=False) for key in keys))
    return WebTokens(path)


@pytest.mark.parametrize("kid", [None, "whatever", "ec"])
@pytest.mark.parametrize("algorithm", sorted(KEYS))
@pytest.mark.parametrize("several", [False, True])
def test_keys_in_pem_have_no_names_and_each_that_fits_is_tried(tmp_path, kid, algorithm, several):
    others = [ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519"), RSAKey.generate_key(2048)] if several else []
    assert read(pem(tmp_path, *others, KEYS[algorithm]), sign(claims(), algorithm, kid=kid))[0] == "alice"


@pytest.mark.parametrize("several", [False, True])
def test_what_no_key_in_pem_has_signed_is_refused(tmp_path, several):
    tokens = pem(tmp_path, KEYS["RS256"], *([KEYS["ES256"], KEYS["Ed25519"]] if several else []))
    public = KEYS["RS256"].as_pem(private=False)
    head, body, signature = sign(claims(), "RS256").split(".")
    by_public_key = jwt.encode({"alg": "HS256"}, claims(), OctKey.import_key(json.dumps({"kty": "oct", "k": b64(public)})), algorithms=["HS256"])
    altered = [b64(header) for header in (b'{"alg":"HS256"}', b'{"alg":"none"}', b'{"alg":"ES256"}', b'{"alg":["RS256"]}', b"[]")]
    for forged in (
        sign(claims(), key=ECKey.generate_key("P-256")),
        sign(claims(), "RS256", key=RSAKey.generate_key(2048)),
        by_public_key,
        f"{altered[0]}.{body}.{signature}",
        f"{altered[1]}.{body}.",
        f"{altered[2]}.{body}.{signature}",
        f"{altered[3]}.{body}.{signature}",
        f"{altered[4]}.{body}.{signature}",
        f"{head}.{body}.",
    ):
        with pytest.raises(WebTokenRefused):
            read(tokens, forged)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_an_algorithm_of_another_curve_is_refused(tmp_path):
    key = ECKey.generate_key("P-384")
    text = sign(claims(), "ES384", key=key)
    assert read(pem(tmp_path, KEYS["ES256"], key), text)[0] == "alice"
    with pytest.raises(WebTokenRefused):
        read(pem(tmp_path, key), ".".join((b64(b'{"alg":"ES256"}'), *text.split(".")[1:])))


def test_keys_in_pem_have_a_limit(tmp_path):
    pem(tmp_path, *[KEYS["ES256"]] * MAX_PEM_KEYS)
    with pytest.raises(StartError, match=f"more than {MAX_PEM_KEYS} keys in PEM"):
        pem(tmp_path, *[KEYS["ES256"]] * (MAX_PEM_KEYS + 1))


def test_rules_come_with_the_token(tokens):
    acl = {"publish": ["out/${client}/#"], "subscribe": ["in/#", "all"], "deny": ["in/secret"]}
    _, rules, _ = read(tokens, sign(good(acl=acl)))
    assert rules == (
        AccessRule("jwt:alice", "publish", "out/${client}/#"),
        AccessRule("jwt:alice", "subscribe", "in/#"),
        AccessRule("jwt:alice", "subscribe", "all"),
        AccessRule("jwt:alice", "*", "in/secret", "deny"),
    )


BAD = [
    {"exp": NOW / 1000},
    {"exp": None},
    {"exp": "soon"},
    {"exp": True},
    {"nbf": NOW / 1000 + 31},
    {"iat": NOW / 1000 + 31},
    {"iss": "other"},
    {"iss": None},
    {"aud": "other"},
    {"aud": ["a", "b"]},
    {"aud": None},
    {"sub": None},
    {"sub": ""},
    {"sub": "*"},
    {"sub": 5},
    {"sub": "a\x00b"},
    {"sub": "x" * 65},
    {"client_id": "c2"},
    {"client_id": None},
    {"acl": []},
    {"acl": {"read": []}},
    {"acl": {"publish": "a"}},
    {"acl": {"publish": ["a/#/b"]}},
    {"acl": {"publish": ["a/${x}"]}},
    {"acl": {"publish": [5]}},
    {"acl": {"publish": ["a"] * 101}},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_claims_that_do_not_hold(tokens, change):
    with pytest.raises(WebTokenRefused):
        read(tokens, sign({k: v for k, v in (good() | change).items() if v is not None or k == "client_id"}))


@pytest.mark.parametrize("change", [{"nbf": NOW / 1000 + 29}, {"aud": ["x", "gateway"]}, {"client_id": "c1"}, {"acl": {}}], ids=str)
def test_claims_that_hold(tokens, change):
    assert read(tokens, sign(good(**change)))[0] == "alice"


def test_signatures_that_nobody_should_take(tokens, jwks):
    text = sign(good())
    head, body, signature = text.split(".")
    other = ECKey.generate_key("P-256", {"kid": "ec"})
    public = json.dumps(KEYS["RS256"].as_dict(private=False)).encode()
    hmac = jwt.encode({"alg": "HS256", "kid": "rsa"}, good(), OctKey.import_key(public), algorithms=["HS256"])
    unsigned = "eyJhbGciOiJub25lIn0." + body + "."
    for forged in (
        sign(good(), key=other),
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-2]}AA",
        f"{head}.{sign(good(sub='bob')).split('.')[1]}.{signature}",
        sign(good(), kid="nobody"),
        sign(good(), kid=None),
        hmac,
        unsigned,
        "ey.a.b",
        "ey..",
        "eyJhbGciOiJFUzI1NiJ9.e30.e30",
        text + "x" * 9000,
    ):
        with pytest.raises(WebTokenRefused):
            read(tokens, forged)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no public key"),
        ("hello", "holds no public key"),
        ("{}", "can't be read"),
        ('{"keys": []}', "can't be read"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "can't be read"),
        (KEYS["ES256"].as_pem(private=True).decode(), "private key"),
        (json.dumps(KEYS["ES256"].as_dict(private=True)), "private key"),
        (json.dumps({"kty": "oct", "k": "A" * 43}), "holds no public key"),
    ],
)
def test_a_file_without_a_public_key_stops_the_start(tmp_path, content, words):
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(StartError, match=words):
        WebTokens(path)


def test_a_file_that_is_missing_stops_the_start(tmp_path):
    with pytest.raises(StartError, match=r"jwt.keys: .*none can't be read"):
        WebTokens(tmp_path / "none")


def test_what_looks_like_a_jwt():
    assert looks_like(sign(good()).encode())
    assert not looks_like(b"secret")
    assert not looks_like(b"ey.b")


def test_verification_is_quick_enough_for_the_loop(tokens):
    text = sign(good(), "RS256")
    began = time.process_time()
    for _ in range(200):
        read(tokens, text)
    assert (time.process_time() - began) / 200 < 0.002


def test_a_changed_file_comes_into_force_and_one_that_does_not_load_changes_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    old, new = KEYS["ES256"], ECKey.generate_key("P-256")
    tokens = pem(tmp_path, old)
    signed_by = tokens.read(sign(claims(), key=old), "c1", NOW).signed_by
    tokens.check()
    assert tokens.version == 0
    (tmp_path / "keys.pem").write_text("no key at all")
    tokens.check()
    tokens.check()
    assert tokens.version == 0
    assert [record.message for record in caplog.records if "jwt keys kept" in record.message] == caplog.messages
    assert len(caplog.messages) == 1
    assert read(tokens, sign(claims(), key=old))[0] == "alice"
    pem(tmp_path, old, new)
    tokens.check()
    assert tokens.version == 1
    assert tokens.is_current(signed_by)
    assert read(tokens, sign(claims(), key=new))[0] == "alice"
    pem(tmp_path, new)
    tokens.check()
    assert tokens.version == 2
    assert not tokens.is_current(signed_by)
    with pytest.raises(WebTokenRefused):
        read(tokens, sign(claims(), key=old))
