"""Enhanced authentication at CONNECT: AUTH to and fro, and whoever breaks off, lies or is too slow."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

import msgspec
import pytest

from gateway.auth.failures import FailedLogins
from gateway.protocol.packets import Auth, Connack, Disconnect, Publish
from gateway.protocol.properties import Properties
from schemas.identities import AccessRule
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from tests.support.party import Party
from tests.support.testbed import Testbed
from tests.support.wire import connect_packet

METHOD = "SCRAM-SHA-256"
SECRET = "secret"


class Client:
    """A client of RFC 7677, written from the text."""

    def __init__(self, bed: Testbed, user: str = "user", secret: str = SECRET, client: str = "c") -> None:
        self.bed, self.user, self.secret, self.client = bed, user, secret, client
        self.party: Party = bed.dial(5)

    def begin(self, method: str = METHOD, data: bytes | None = None) -> Auth | None:
        self.bare = f"n={self.user},r=abcdefghij"
        properties = Properties(authentication_method=method, authentication_data=f"n,,{self.bare}".encode() if data is None else data)
        self.party.send(connect_packet(self.client, 5, properties=properties))
        until = time.monotonic() + 5
        while not self.party.inbox and not self.party.closed and time.monotonic() < until:
            self.bed.settle()
            time.sleep(0.002)  # the hash is computed in a thread, which this loop's time knows nothing of
        found = self.party.take(Auth)
        return found[0] if found else None

    def proof(self, challenge: Auth) -> bytes:
        assert challenge.properties is not None
        sent = (challenge.properties.authentication_data or b"").decode()
        fields = dict(part.split("=", 1) for part in sent.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self.secret.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        bare = f"c=biws,r={fields['r']}"
        self.signed = f"{self.bare},{sent},{bare}".encode()
        self.server_key = hmac.digest(salted, b"Server Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), self.signed, "sha256")
        return f"{bare},p={base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()}".encode()

    def answer(self, data: bytes, method: str = METHOD, reason: ReasonCode = ReasonCode.CONTINUE_AUTHENTICATION) -> Connack | None:
        self.party.send(Auth(reason_code=reason, properties=Properties(authentication_method=method, authentication_data=data)))
        found = self.party.take(Connack)
        return found[0] if found else None

    def login(self) -> Connack | None:
        challenge = self.begin()
        assert challenge is not None
        assert challenge.reason_code == ReasonCode.CONTINUE_AUTHENTICATION
        return self.answer(self.proof(challenge))


@pytest.fixture(autouse=True)
def identity(bed: Testbed) -> None:
    bed.loop.finish(bed.node.registers.identities.add("user", "USER", "", "secret", "ORIGIN"))
    bed.loop.finish(bed.node.registers.policies.put(AccessRule("user:user", "*", "own/${client}")))


def test_a_client_that_proves_who_it_is(bed: Testbed) -> None:
    """[MQTT-4.12.0-2] [MQTT-4.12.0-5]"""
    client = Client(bed)
    connack = client.login()
    assert connack is not None
    assert connack.reason_code == 0
    assert connack.properties is not None
    assert connack.properties.authentication_method == METHOD
    verifier = base64.b64encode(hmac.digest(client.server_key, client.signed, "sha256"))
    assert connack.properties.authentication_data == b"v=" + verifier
    assert client.party.subscribe("own/c") == (1,)
    assert client.party.subscribe("own/other")[0] >= 0x80
    session = bed.session("c")
    assert session is not None
    assert session.principal.name == "user:user"


@pytest.mark.parametrize(("user", "secret"), [("user", "wrong"), ("nobody", "secret")])
def test_a_wrong_secret_and_an_unknown_name_get_the_same_answer(bed: Testbed, user: str, secret: str) -> None:
    client = Client(bed, user, secret)
    connack = client.login()
    assert connack is not None
    assert connack.reason_code == ReasonCode.NOT_AUTHORIZED
    assert client.party.closed
    assert bed.session("c") is None


def test_an_unknown_name_has_a_salt_of_its_own_that_stays(bed: Testbed) -> None:
    salts = []
    for user in ("nobody", "nobody", "other", "user"):
        challenge = Client(bed, user).begin()
        assert challenge is not None
        assert challenge.properties is not None
        salts.append((challenge.properties.authentication_data or b"").split(b",s=")[1])
    assert salts[0] == salts[1]
    assert len(set(salts)) == 3


@pytest.mark.parametrize("method", ["SCRAM-SHA-1", "PLAIN", "scram-sha-256", "x" * 1000])
def test_another_method_is_refused(bed: Testbed, method: str) -> None:
    """[MQTT-4.12.0-1]"""
    client = Client(bed)
    assert client.begin(method) is None
    assert client.party.one(Connack).reason_code == ReasonCode.BAD_AUTHENTICATION_METHOD
    assert client.party.closed


@pytest.mark.parametrize("data", [b"", b"n,,", b"n,,n=user,r=x", b"\xff\xfe"])
def test_a_first_message_that_is_none_is_refused(bed: Testbed, data: bytes) -> None:
    client = Client(bed)
    assert client.begin(data=data) is None
    assert client.party.one(Connack).reason_code == ReasonCode.NOT_AUTHORIZED


@pytest.mark.parametrize("change", ["method", "reason", "data"])
def test_an_answer_that_is_none_is_refused(bed: Testbed, change: str) -> None:
    client = Client(bed)
    challenge = client.begin()
    assert challenge is not None
    data = client.proof(challenge)
    connack = {
        "method": lambda: client.answer(data, method="PLAIN"),
        "reason": lambda: client.answer(data, reason=ReasonCode.REAUTHENTICATE),
        "data": lambda: client.answer(data[:-4] + b"AAA="),
    }[change]()
    assert connack is not None
    assert connack.reason_code == ReasonCode.NOT_AUTHORIZED
    assert client.party.closed


def test_nothing_but_auth_and_disconnect_may_come_meanwhile(bed: Testbed) -> None:
    """[MQTT-3.1.2-30]"""
    for packet in (Publish(topic="a", payload=b"", qos=0, retain=False, dup=False), Disconnect()):
        client = Client(bed)
        assert client.begin() is not None
        client.party.send(packet)
        bed.settle()
        assert client.party.closed
        assert bed.published() == []


@pytest.mark.parametrize("way", ["gone", "slow"])
def test_a_client_that_does_not_go_on_is_forgotten(bed: Testbed, way: str) -> None:
    client = Client(bed)
    assert client.begin() is not None
    if way == "gone":
        client.party.drop()
    else:
        bed.advance(30)
    bed.advance(1)
    assert client.party.closed
    authenticating = bed.node.connecting.authenticating
    assert not authenticating._waiting
    assert not authenticating._finals
    assert not bed.node.connecting._tasks


def test_what_comes_behind_the_proof_waits_for_connack(bed: Testbed) -> None:
    client = Client(bed)
    challenge = client.begin()
    assert challenge is not None
    bed.log.held = True
    assert client.answer(client.proof(challenge)) is None
    client.party.publish("own/c", b"early", 1)
    bed.settle()
    bed.log.release_held()
    bed.advance(1)
    assert client.party.one(Connack).reason_code == 0
    assert [record.payload for record in bed.published()] == [b"early"]


def test_an_auth_on_a_connection_that_lives_is_a_protocol_error(bed: Testbed) -> None:
    client = Client(bed)
    client.login()
    client.answer(b"again", reason=ReasonCode.REAUTHENTICATE)
    assert client.party.one(Disconnect).reason_code == ReasonCode.PROTOCOL_ERROR
    assert client.party.closed


def test_failed_logins_are_counted_by_the_user_whatever_the_client_id(bed: Testbed) -> None:
    """One budget with plain logins of the same name."""
    bed.node.failed_logins = FailedLogins(Limits(login_failures_key=3), bed.node.monotonic, bed.node.counters.refused)
    for number in range(2):
        connack = Client(bed, secret="wrong", client=f"c{number}").login()
        assert connack is not None
        assert connack.reason_code == ReasonCode.NOT_AUTHORIZED
    plain = bed.dial(5)
    plain.connect("c2", user_name="user", password=b"wrong")
    spent = Client(bed, client="c3")
    assert spent.begin() is None
    assert spent.party.one(Connack).reason_code == ReasonCode.CONNECTION_RATE_EXCEEDED
    bed.loop.finish(bed.node.registers.identities.add("other", "USER", "", "secret", "ORIGIN"))
    connack = Client(bed, "other", client="c0").login()
    assert connack is not None
    assert connack.reason_code == 0


def test_a_first_message_that_is_none_counts_for_the_address(bed: Testbed) -> None:
    bed.node.failed_logins = FailedLogins(Limits(login_failures_address=2), bed.node.monotonic, bed.node.counters.refused)
    bed.node.settings = msgspec.structs.replace(bed.node.settings, allow_plaintext_login=True)
    for _ in range(2):
        client = Client(bed)
        client.party = bed.dial(5, host="192.0.2.7")
        assert client.begin(data=b"junk") is None
        assert client.party.one(Connack).reason_code == ReasonCode.NOT_AUTHORIZED
    client.party = bed.dial(5, host="192.0.2.7")
    assert client.begin() is None
    assert client.party.one(Connack).reason_code == ReasonCode.CONNECTION_RATE_EXCEEDED


def test_from_another_machine_it_wants_tls(bed: Testbed) -> None:
    client = Client(bed)
    client.party = bed.dial(5, host="192.0.2.1")
    assert client.begin() is None
    assert client.party.one(Connack).reason_code == ReasonCode.NOT_AUTHORIZED
