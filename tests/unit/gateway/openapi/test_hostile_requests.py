"""Five thousand mutated requests against the OpenAPI, in both families of signatures: nothing of any is believed.

What is left out is left out by an argument: what a request signs is compared after a reading of our own (``meaning_v1``, ``meaning_acs3``),
and where that is the same for both it is the same request in other words. ``test_other_words_for_the_same_request_are_taken`` shows that these
are. A refusal counts only with a code from before belief: a signature that was taken for right would be told by another one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from gateway.services import Services
from schemas.limits import Limits
from tests.support.mutations import PLAN, Draw, other_secret
from tests.support.testbed import Testbed
from tests.unit.gateway.openapi.gate import AHEAD_OF_BELIEF, Made, Reply, app_of, ask
from tests.unit.gateway.openapi.requests import acs3, encode, v1

FORM = {"content-type": "application/x-www-form-urlencoded"}
FIELDS = {"InstanceId": "bed", "MqttTopic": "plant/a", "Payload": "b+n/0="}


class Site:
    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.app = app_of(bed.node, Services(bed.node, bed.keyring, bed.engine, "0", lambda: 0.0))
        self.key, self.other = (bed.loop.finish(bed.keyring.create("manager", 0)) for _ in range(2))
        self.taken: list[Any] = []
        self.tried = 0

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def secret(self) -> str:
        return self.key.secret.reveal()

    @property
    def now(self) -> int:
        return self.bed.clock.wall()

    def send(self, made: Made) -> Reply:
        return self.bed.loop.finish(ask(self.app, made))

    def attack(self, right: Made, wrong: Made) -> None:
        """``wrong`` must not be believed; ``right``, which has a nonce of its own, is sent once in a while and must be."""
        if self.tried % 100 == 0:
            assert self.send(right).code == ""
        self.tried += 1
        reply = self.send(wrong)
        if reply.code not in AHEAD_OF_BELIEF:
            self.taken.append((wrong, reply))

    def finish(self, name: str) -> None:
        assert self.taken == []
        assert self.tried == PLAN[name]
        assert len(self.bed.published()) == (PLAN[name] + 99) // 100


@pytest.fixture
def site(make_bed: Callable[..., Testbed], caplog: pytest.LogCaptureFixture) -> Site:
    """Without budgets of failures, which would refuse all after the first hundred, whatever it was."""
    caplog.set_level("ERROR", "gateway.openapi.endpoint")
    return Site(make_bed(limits=Limits(login_failures_address=0, login_failures_key=0)))


# Signature V1


def v1_pairs(site: Site) -> list[tuple[str, str]]:
    _, target, _, _ = v1(site.id, site.secret, "SendMessage", site.now, **FIELDS)
    return parse_qsl(target[2:], keep_blank_values=True)


def sent_v1(pairs: list[tuple[str, str]], method: str = "POST", *, form: bool = False) -> Made:
    text = urlencode(pairs, errors="surrogatepass")
    return (method, "/", {"host": "gateway", **FORM}, text.encode()) if form else (method, "/?" + text, {"host": "gateway"}, b"")


def meaning_v1(pairs: list[tuple[str, str]], method: str) -> Any:
    """All of what Signature V1 signs and its signature: in which order, and whether in query or form, it doesn't say."""
    return method, sorted(pairs)


def sign_v1(pairs: list[tuple[str, str]], secret: str, method: str = "POST", algorithm: str = "sha1", end: str = "&") -> str:
    joined = "&".join(f"{encode(k)}={encode(v)}" for k, v in sorted(pairs) if k != "Signature")
    return base64.b64encode(hmac.digest((secret + end).encode(), f"{method}&%2F&{encode(joined)}".encode(), algorithm)).decode()


def mutated_v1(site: Site, draw: Draw, pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], str]:
    """Pairs and method of a request by somebody who has no secret, or not this key's."""
    pairs, method, way, at = list(pairs), "POST", draw.randrange(11), draw.randrange(len(pairs))
    name, value = pairs[at]
    signature = next(index for index, pair in enumerate(pairs) if pair[0] == "Signature")
    if way < 3:
        pairs[signature] = ("Signature", draw.changed(pairs[signature][1]))
    elif way == 3:
        pairs[at] = (name, draw.changed(value))
    elif way == 4:
        pairs[at] = (draw.changed(name), value)
    elif way == 5:
        pairs.insert(at, draw.choice((pairs[at], (name, draw.changed(value)), (draw.changed("ClientId"), "x"), ("", ""), ("Zz", ""))))
    elif way == 6:
        del pairs[at]
    elif way == 7:
        there = draw.randrange(len(pairs))
        pairs[at], pairs[there] = (name, pairs[there][1]), (pairs[there][0], value)
    elif way == 8:
        wrong = draw.choice((other_secret(draw, site.secret), site.other.secret.reveal(), "", site.id, site.secret[::-1]))
        pairs[signature] = ("Signature", sign_v1(pairs, wrong))
    elif way == 9:
        others = [*pairs[:at], (name, draw.changed(value)), *pairs[at + 1 :]] if name != "Signature" else pairs[:-2]
        signed = (sign_v1(others, site.secret), sign_v1(pairs, site.secret, "GET"), sign_v1(pairs, site.secret, algorithm="sha256"))
        pairs[signature] = ("Signature", draw.choice((*signed, sign_v1(pairs, site.secret, end=""))))
    else:
        method = "GET"
    return pairs, method


def clean(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """As text that can be sent at all: no lone surrogate."""
    return [(k.encode(errors="replace").decode(), v.encode(errors="replace").decode()) for k, v in pairs]


@pytest.mark.slow
def test_no_mutated_request_with_signature_v1_is_believed(site: Site) -> None:
    draw = Draw(30_301)
    while site.tried < PLAN["V1"]:
        pairs = v1_pairs(site)
        changed, method = mutated_v1(site, draw, pairs)
        changed = clean(changed)
        if meaning_v1(changed, method) == meaning_v1(pairs, "POST"):
            continue
        if "SignatureNonce" in dict(changed) and draw.random() < 0.1:
            draw.shuffle(changed)
        site.attack(sent_v1(v1_pairs(site)), sent_v1(changed, method, form=method == "POST" and draw.random() < 0.2))
    site.finish("V1")


# ACS3-HMAC-SHA256


def sent_acs3(site: Site, secret: str | None = None, body: bytes = b"") -> Made:
    return acs3(site.id, site.secret if secret is None else secret, "SendMessage", site.now, body, {**FORM, "user-agent": "sdk/1"}, **FIELDS)


def authorization_of(headers: dict[str, str]) -> tuple[str, list[str], str] | None:
    """Key id, names and signature; None where it has another form."""
    scheme, _, rest = headers.get("authorization", "").partition("Credential=")
    parts = ["Credential=" + rest] if scheme.strip() == "ACS3-HMAC-SHA256" else []
    parts = [part.strip() for part in "".join(parts).split(",")]
    if len(parts) != 3 or not parts[1].startswith("SignedHeaders=") or not parts[2].startswith("Signature="):
        return None
    return parts[0][11:], parts[1][14:].lower().split(";"), parts[2][10:].lower()


def meaning_acs3(made: Made) -> Any:
    """What ACS3 signs, its key and its signature. Case of names, white space around values and the order of headers and parameters are no part
    of it, nor are headers that are not signed."""
    method, target, headers, body = made
    read = authorization_of(headers)
    if read is None:
        return None
    key, names, signature = read
    path, _, query = target.partition("?")
    lines = sorted((name, headers.get(name, "\x00").strip()) for name in names)
    return method, path, sorted(parse_qsl(query, keep_blank_values=True)), lines, hashlib.sha256(body).hexdigest(), key, signature


def wire(headers: dict[str, str]) -> dict[str, str]:
    """As a server reads the bytes of a header: in Latin-1, one line."""
    return {k: v.encode(errors="replace").decode("latin-1").replace("\r", " ").replace("\n", " ") for k, v in headers.items()}


def mutated_acs3(site: Site, draw: Draw, made: Made) -> Made:
    method, target, headers, body = made
    headers, way = dict(headers), draw.randrange(11)
    head, _, signature = headers["authorization"].rpartition("=")
    pairs = parse_qsl(target[2:], keep_blank_values=True)
    at = draw.randrange(len(pairs))
    if way < 3:
        headers["authorization"] = f"{head}={draw.changed(signature)}"
    elif way == 3:
        name = draw.choice(sorted(headers))
        headers[name] = draw.changed(headers[name])
    elif way == 4:
        del headers[draw.choice(sorted(headers))]
    elif way == 5:
        names = authorization_of(headers)
        assert names is not None
        fewer = draw.choice((draw.sample(names[1], len(names[1]) - 1), [*names[1], draw.choice(names[1])], [*names[1], "accept"], names[1][:1], []))
        headers["authorization"] = headers["authorization"].replace(";".join(names[1]), ";".join(fewer))
    elif way == 6:
        changes = [[*pairs[:at], *pairs[at + 1 :]], [*pairs, pairs[at]], [*pairs, ("ClientId", "x")], pairs + [(k + k, v) for k, v in pairs]]
        changes += [[(k, draw.changed(v) if k == pairs[at][0] else v) for k, v in pairs], [(draw.changed(k), v) for k, v in pairs]]
        target = "/?" + urlencode(clean(draw.choice(changes)))
    elif way == 7:
        body = draw.choice((b"Payload=off", b"InstanceId=other", b"x", b"\x00", b"{}"))
        if draw.random() < 0.5:
            headers["x-acs-content-sha256"] = draw.choice((hashlib.sha256(body).hexdigest(), "UNSIGNED-PAYLOAD", "", hashlib.md5(body).hexdigest()))  # noqa: S324
    elif way == 8:
        wrong = draw.choice((other_secret(draw, site.secret), site.other.secret.reveal(), "-", site.id, site.secret + "&"))
        method, target, headers, body = sent_acs3(site, wrong)
    elif way == 9:
        names = draw.sample([name for name in headers if name != "authorization"], 2)
        headers[names[0]], headers[names[1]] = headers[names[1]], headers[names[0]]
    else:
        method, key = draw.choice((("GET", site.id), ("POST", site.other.id), ("POST", site.id.lower()), ("POST", "")))
        scheme = draw.choice(("ACS3-HMAC-SHA256", "ACS3-HMAC-SM3", "ACS3-RSA-SHA256", "acs3-hmac-sha256", "Bearer", ""))
        headers["authorization"] = headers["authorization"].replace(site.id, key).replace("ACS3-HMAC-SHA256", scheme)
    return method, target, wire(headers), body


@pytest.mark.slow
def test_no_mutated_request_with_acs3_is_believed(site: Site) -> None:
    draw = Draw(30_302)
    while site.tried < PLAN["ACS3"]:
        made = sent_acs3(site)
        changed = mutated_acs3(site, draw, made)
        if meaning_acs3(changed) == meaning_acs3(made):
            continue
        site.attack(sent_acs3(site), changed)
    site.finish("ACS3")


# What was left out


def reordered(made: Made) -> Made:
    method, target, headers, body = made
    return method, "/?" + "&".join(reversed(target[2:].split("&"))), dict(reversed(headers.items())), body


def spelled(made: Made) -> Made:
    """Percent signs before every character of a value, in small letters."""
    method, target, headers, body = made
    parts = [pair.partition("=") for pair in target[2:].split("&")]
    pairs = parse_qsl(target[2:], keep_blank_values=True)
    every = [f"{name}={''.join(f'%{byte:02x}' for byte in value.encode())}" for (name, _, _), (_, value) in zip(parts, pairs, strict=True)]
    return method, "/?" + "&".join(every), headers, body


def in_form(made: Made) -> Made:
    return made[0], "/", made[2] | FORM, made[1][2:].encode()


def roomy(made: Made) -> Made:
    headers = {name: f" {value}\t" for name, value in made[2].items() if name != "authorization"}
    return *made[:2], headers | {"authorization": made[2]["authorization"].replace(",", " , ")}, made[3]


def shouted(made: Made) -> Made:
    head, _, signature = made[2]["authorization"].rpartition("=")
    first, _, names = head.removesuffix(",Signature").partition("SignedHeaders=")
    return *made[:2], made[2] | {"authorization": f"{first}SignedHeaders={names.upper()},Signature={signature.upper()}"}, made[3]


@pytest.mark.parametrize("words", [reordered, spelled, in_form])
def test_other_words_for_the_same_request_are_taken(site: Site, words: Callable[[Made], Made]) -> None:
    made = v1(site.id, site.secret, "SendMessage", site.now, **FIELDS)
    assert site.send(words(made)).code == ""
    assert site.send(made).code == "SignatureNonceUsed"


@pytest.mark.parametrize("words", [reordered, spelled, roomy, shouted])
def test_other_words_for_the_same_acs3_request_are_taken(site: Site, words: Callable[[Made], Made]) -> None:
    made = sent_acs3(site)
    assert meaning_acs3(words(made)) == meaning_acs3(made)
    assert site.send(words(made)).code == ""
    assert site.send(made).code == "SignatureNonceUsed"


# Found by them


@pytest.mark.parametrize("without", [False, True])
def test_what_makes_a_body_parameters_must_be_signed(site: Site, without: bool) -> None:
    """Else somebody on the way could make a form out of a body, or none out of a form."""
    body = urlencode(FIELDS).encode()
    made = acs3(site.id, site.secret, "SendMessage", site.now, body, FORM if without else {})
    headers = {name: value for name, value in (made[2] | ({} if without else FORM)).items() if not (without and name == "content-type")}
    assert site.send((*made[:2], headers, body)).code == "IncompleteSignature"
    assert site.bed.published() == []


@pytest.mark.parametrize("name", ["Secret", "Token", "SecurityToken"])
def test_a_refusal_repeats_no_secret(site: Site, name: str) -> None:
    """The classic SDK wants to see the string to sign; where that holds a secret, it would be in its caller's log."""
    reply = site.send(v1(site.id, "wrong", "AddCustomAuthIdentity", site.now, InstanceId="bed", **{name: "canary"}))
    assert reply.code == "SignatureDoesNotMatch"
    assert "canary" not in str(reply.body)
    assert "server string to sign is:POST&" in site.send(v1(site.id, "wrong", "ListGroupId", site.now, InstanceId="bed")).body["Message"]
