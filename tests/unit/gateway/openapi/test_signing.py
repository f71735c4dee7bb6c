"""Signatures: the reference vectors of both families, and that whatever is changed on the way is noticed."""

import hashlib
import random
from urllib.parse import parse_qsl, urlsplit

import pytest

from gateway.openapi.faults import Fault
from gateway.openapi.signing import MUST_BE_SIGNED, Request, acs3_canonical, claim_of, v1_text
from tests.unit.gateway.openapi.requests import acs3, v1

NOW = 1_609_459_200_000
V1 = {
    "AccessKeyId": "AK", "Action": "QuerySessionByClientId", "ClientId": "GID_a@@@1", "Format": "JSON", "InstanceId": "mqtt-cn-x",
    "SignatureMethod": "HMAC-SHA1", "SignatureNonce": "n1", "SignatureType": "", "SignatureVersion": "1.0",
    "Timestamp": "2021-01-01T00:00:00Z", "Version": "2020-04-20", "Signature": "cTgerUbk2IFLEeSrtOXyZLDuf/M=",
}  # fmt: skip
HEADERS = {
    "host": "127.0.0.1:8080", "x-acs-action": "QuerySessionByClientId", "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(),
    "x-acs-date": "2021-01-01T00:00:00Z", "x-acs-signature-nonce": "n1", "x-acs-version": "2020-04-20",
}  # fmt: skip
QUERY = [("ClientId", "GID_a@@@1"), ("InstanceId", "mqtt-cn-x")]


def code(request):
    with pytest.raises(Fault) as fault:
        claim_of(request)
    return fault.value.code


def of(made):
    method, target, headers, body = made
    return Request(method, "/", parse_qsl(urlsplit(target).query, keep_blank_values=True), [], headers, body)


def test_the_vector_of_signature_v1():
    assert v1_text("GET", V1) == (
        "GET&%2F&AccessKeyId%3DAK%26Action%3DQuerySessionByClientId%26ClientId%3DGID_a%2540%2540%25401%26Format%3DJSON%26InstanceId%3Dmqtt-cn-x"
        "%26SignatureMethod%3DHMAC-SHA1%26SignatureNonce%3Dn1%26SignatureType%3D%26SignatureVersion%3D1.0"
        "%26Timestamp%3D2021-01-01T00%253A00%253A00Z%26Version%3D2020-04-20"
    )
    claim = claim_of(Request("GET", "/", list(V1.items()), [], {}, b""))
    assert claim.is_signed_with(b"SK")
    assert not claim.is_signed_with(b"SK2")
    assert (claim.key_id, claim.action, claim.version, claim.nonce, claim.time) == ("AK", "QuerySessionByClientId", "2020-04-20", "n1", NOW)


def test_the_vector_of_acs3():
    canonical = acs3_canonical("POST", "/", QUERY, HEADERS, list(HEADERS), HEADERS["x-acs-content-sha256"])
    assert hashlib.sha256(canonical.encode()).hexdigest() == "788f3a36c01ed3d76839dddff6c824c518cfa5eb92a2bed5032e63dedde4a4f2"
    signature = "376fcb1d9ea06b43d8164ad9700f226571a97597c66a2c8f4f41a9c67fdf3b66"
    authorization = f"ACS3-HMAC-SHA256 Credential=AK,SignedHeaders={';'.join(sorted(HEADERS))},Signature={signature}"
    claim = claim_of(Request("POST", "/", QUERY, [], HEADERS | {"authorization": authorization}, b""))
    assert claim.is_signed_with(b"SK")
    assert (claim.key_id, claim.action, claim.time) == ("AK", "QuerySessionByClientId", NOW)


@pytest.mark.parametrize("name", sorted(V1.keys() - {"ClientId", "Format", "InstanceId", "SignatureType"}))
def test_v1_wants_all_of_its_parameters(name):
    assert code(Request("GET", "/", [pair for pair in V1.items() if pair[0] != name], [], {}, b"")) == "IncompleteSignature"


@pytest.mark.parametrize("name", sorted(MUST_BE_SIGNED))
def test_acs3_wants_its_headers_signed(name):
    method, target, headers, body = acs3("AK", "SK", "ListGroupId", NOW)
    names = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    fewer = ";".join(each for each in names.split(";") if each != name)
    assert code(of((method, target, headers | {"authorization": headers["authorization"].replace(names, fewer)}, body))) == "IncompleteSignature"
    without = {key: value for key, value in headers.items() if key != name}
    assert code(of((method, target, without, body))) == "IncompleteSignature"


@pytest.mark.parametrize(
    "authorization",
    ["ACS3-HMAC-SHA256", "ACS3-HMAC-SHA256 Credential=AK", "ACS3-HMAC-SHA256 Credential=,SignedHeaders=a,Signature=0", "ACS3-HMAC-SHA256x"],
)
def test_acs3_in_another_form_is_incomplete(authorization):
    assert code(Request("POST", "/", QUERY, [], HEADERS | {"authorization": authorization}, b"")) == "IncompleteSignature"


def test_a_parameter_twice_is_refused():
    assert code(Request("GET", "/", [*V1.items(), ("ClientId", "other")], [], {}, b"")) == "IncompleteSignature"
    assert code(Request("POST", "/", list(V1.items()), [("ClientId", "other")], {}, b"")) == "IncompleteSignature"


def test_a_body_that_is_not_the_signed_one_is_refused():
    method, target, headers, _ = acs3("AK", "SK", "ListGroupId", NOW, b"a=1")
    assert code(of((method, target, headers, b"a=2"))) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "time", ["", "2021-01-01", "2021-01-01T00:00:00", "2021-13-01T00:00:00Z", "2021-01-01T00:00:00+08:00", "x" * 99, "\u066221-01-01T00:00:00Z"]
)
def test_a_time_in_another_form(time):
    found = code(Request("GET", "/", list((V1 | {"Timestamp": time}).items()), [], {}, b""))
    assert found == ("InvalidTimeStamp.Format" if time else "IncompleteSignature")


def test_v1_signs_query_and_form_together():
    split = [pair for pair in V1.items() if pair[0] < "F"], [pair for pair in V1.items() if pair[0] >= "F"]
    assert claim_of(Request("GET", "/", split[0], split[1], {}, b"")).is_signed_with(b"SK")


@pytest.mark.slow
@pytest.mark.parametrize("family", [v1, acs3])
def test_ten_thousand_changed_requests_verify_nowhere(family):
    chance = random.Random(11)
    request = of(family("AK", "SK", "SendMessage", NOW, MqttTopic="plant/a", Payload="on", InstanceId="i"))
    assert claim_of(request).is_signed_with(b"SK")
    for _ in range(10_000):
        changed = mutate(request, chance)
        if changed == request:
            continue
        try:
            claim = claim_of(changed)
        except Fault:
            continue
        # Whose key it is to be is not signed: another key has another secret
        assert claim.key_id != "AK" or not claim.is_signed_with(b"SK"), changed


def mutate(request: Request, chance: random.Random) -> Request:
    """One character of one value is another, one pair is gone, or one is new."""
    query, headers = list(request.query), dict(request.headers)
    what = chance.randrange(4 if "authorization" in headers else 3)
    if what == 0:
        query.pop(chance.randrange(len(query)))
    elif what == 1:
        query.append((chance.choice(("A", "Z", "Payload2", "")), chance.choice(("", "x"))))
    elif what == 2:
        at = chance.randrange(len(query))
        query[at] = (query[at][0], another(query[at][1], chance))
    else:
        name = chance.choice([name for name in headers if name.startswith(("x-acs", "host", "auth"))])
        headers[name] = another(headers[name], chance)
        if headers[name].lower().replace(" ", "") == request.headers[name].lower().replace(" ", ""):
            return request
    return Request(request.method, request.path, query, [], headers, request.body)


def another(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice("abcXYZ019-_=/+%") + text[at + chance.randrange(2) :]
