"""Logins: Signature and anonymous, who gets which code, and that an unknown key costs what a known one costs."""

import pytest

from gateway.auth.login import Authenticator, LoginRefused, Peer, sign, signature_user_name
from schemas.identities import ANONYMOUS, Principal
from schemas.reasons import CONNECT_RETURN_CODES, ReasonCode
from tests.unit.gateway.auth.keystore import new_keyring

LOCAL = Peer("127.0.0.1:5", True, False)
REMOTE = Peer("192.0.2.1:5", False, False)
REMOTE_TLS = Peer("192.0.2.1:5", False, True)


class Site:
    """A key ring with a device's key and an administrator's."""

    def __init__(self, keyring, device, administrator):
        self.keyring, self.device, self.administrator = keyring, device, administrator

    def login(self, client="c1", peer=LOCAL, key=None, user=None, password=None, anonymous=False, plaintext=False):
        key = key or self.device
        authenticator = Authenticator(self.keyring, anonymous=anonymous, allow_plaintext_login=plaintext)
        user = signature_user_name(key.id, key.instance_id) if user is None else user
        password = sign(key.secret.reveal().encode(), "c1") if password is None else password
        return authenticator.login(user, password, client, peer, 0)


@pytest.fixture
async def site(tmp_path):
    keyring = await new_keyring(tmp_path, instance_id="mqtt-sw-test")
    return Site(keyring, await keyring.create("device", 0), await keyring.create("administrator", 0))


def code(outcome):
    assert isinstance(outcome, LoginRefused), outcome
    return outcome.reason_code


@pytest.mark.parametrize(
    ("secret", "client", "password"),
    [("XXXXX", "GID_Test@@@0001", b"vI009IZJZVGRwBwZvnbwjfuXxVM="), ("DC.secret", "GID_test@@@test", b"xvOd7Q0nJnNjBZpp6lz7YToKd8M=")],
)
def test_the_signature_is_the_products(secret, client, password):
    assert sign(secret.encode(), client) == password


def test_the_user_name_is_the_products():
    assert signature_user_name("YYYYY", "mqtt-xxxxx") == "Signature|YYYYY|mqtt-xxxxx"


def test_a_right_signature_is_its_keys_principal(site):
    assert site.login() == Principal(site.device.id, "device", "c1")


BAD = ReasonCode.BAD_USER_NAME_OR_PASSWORD
NOT = ReasonCode.NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"client": "c2"}, BAD),
        ({"password": b""}, BAD),
        ({"password": b"x" * 28}, BAD),
        ({"password": b"\xff" * 4000}, BAD),
        ({"user": ""}, BAD),
        ({"user": "c1"}, BAD),
        ({"user": "Signature|nobody|mqtt-sw-test"}, BAD),
        ({"user": "Signature||"}, BAD),
        ({"user": "{mode}|{id}"}, BAD),
        ({"user": "signature|{id}|mqtt-sw-test"}, BAD),
        ({"user": "Token|{id}|mqtt-sw-test"}, BAD),
        ({"user": "Signature|{id}|mqtt-sw-test|"}, BAD),
        ({"user": "Signature|{id}|mqtt-sw-other"}, NOT),
        ({"user": "Signature|{id}|"}, NOT),
        ({"peer": REMOTE}, NOT),
    ],
)
def test_what_does_not_log_in_and_with_which_code(site, change, expected):
    if "user" in change:
        change = {**change, "user": change["user"].replace("{mode}", "Signature").replace("{id}", site.device.id)}
    assert code(site.login(**change)) == expected
    assert CONNECT_RETURN_CODES[expected] == {BAD: 4, NOT: 5}[expected]


def test_a_wrong_instance_is_told_only_to_who_has_the_secret(site):
    assert code(site.login(user=f"Signature|{site.device.id}|mqtt-sw-other", password=b"wrong")) == BAD


def test_a_user_name_without_a_password_is_no_login(site):
    authenticator = Authenticator(site.keyring, anonymous=True, allow_plaintext_login=False)
    assert code(authenticator.login(signature_user_name(site.device.id, "mqtt-sw-test"), None, "c1", LOCAL, 0)) == BAD
    assert code(authenticator.login(None, b"password", "c1", LOCAL, 0)) == BAD


async def test_a_revoked_key_does_not_log_in(site):
    await site.keyring.revoke(site.device.id)
    assert code(site.login()) == BAD


@pytest.mark.parametrize(
    ("peer", "plaintext", "admitted"), [(LOCAL, False, True), (REMOTE, False, False), (REMOTE, True, True), (REMOTE_TLS, False, True)]
)
def test_logins_in_clear_text_stay_on_this_machine_unless_allowed(site, peer, plaintext, admitted):
    assert isinstance(site.login(peer=peer, plaintext=plaintext), Principal) is admitted


@pytest.mark.parametrize(("peer", "admitted"), [(LOCAL, True), (REMOTE_TLS, False)])
def test_the_administrator_logs_in_from_this_machine_only(site, peer, admitted):
    outcome = site.login(key=site.administrator, peer=peer)
    assert outcome == Principal(site.administrator.id, "administrator", "c1") if admitted else code(outcome) == NOT


@pytest.mark.parametrize(
    ("enabled", "peer", "admitted"), [(True, LOCAL, True), (False, LOCAL, False), (True, REMOTE, False), (True, REMOTE_TLS, False)]
)
def test_anonymous_is_for_this_machine_and_by_setting(site, enabled, peer, admitted):
    authenticator = Authenticator(site.keyring, anonymous=enabled, allow_plaintext_login=True)
    outcome = authenticator.login(None, None, "c1", peer, 0)
    assert outcome == Principal(ANONYMOUS, "anonymous", "c1") if admitted else code(outcome) == NOT


def test_anonymous_being_enabled_admits_no_wrong_login(site):
    assert code(site.login(password=b"wrong", anonymous=True)) == BAD


def test_an_unknown_key_takes_the_same_path(site, monkeypatch):
    """Both sign once: timing says nothing of which keys exist."""
    signed = []

    def spy(secret, client_id):
        signed.append(len(secret))
        return b"never right"

    monkeypatch.setattr("gateway.auth.login.sign", spy)
    site.login(password=b"wrong")
    site.login(user="Signature|nobody|mqtt-sw-test", password=b"wrong")
    assert signed == [40, 40]


def test_every_mutation_of_a_signature_is_refused(site):
    right = sign(site.device.secret.reveal().encode(), "c1")
    for index in range(len(right)):
        for bit in range(8):
            wrong = bytearray(right)
            wrong[index] ^= 1 << bit
            assert code(site.login(password=bytes(wrong))) == BAD


def test_the_api_takes_the_secret_itself(site):
    authenticator = Authenticator(site.keyring, anonymous=True, allow_plaintext_login=False)
    secret = site.device.secret.reveal()
    assert authenticator.login_api(site.device.id, secret, LOCAL, 0) == Principal(site.device.id, "device")
    assert code(authenticator.login_api(site.device.id, secret + "x", LOCAL, 0)) == BAD
    assert code(authenticator.login_api("nobody", secret, LOCAL, 0)) == BAD
    assert code(authenticator.login_api("", "", LOCAL, 0)) == BAD
    assert code(authenticator.login_api(site.device.id, secret, REMOTE, 0)) == NOT
    assert authenticator.login_api(site.administrator.id, site.administrator.secret.reveal(), LOCAL, 0).role == "administrator"
