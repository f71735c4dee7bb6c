"""Logins by client certificate: who a connection is, what it may do, and that what is refused is refused at once, live connections included."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.login import sign
from gateway.auth.x509 import read_serial
from schemas.identities import AccessRule
from schemas.reasons import ReasonCode
from schemas.settings import TlsSettings
from streams.presence import event_json
from tests.support.certificates import Authority, Pair
from tests.support.testbed import Testbed

KEEP: dict[str, Any] = {"clean_start": False, "session_expiry": 600}


class Site:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.bed = Testbed(folder, **settings)
        self.bed.clock.ahead = time.time_ns() // 1_000_000 - self.bed.clock.raw()
        self.authority = Authority(folder)
        self.certificates = self.bed.node.registers.certificates
        self.register()

    def register(self) -> None:
        code = self.certificates.code
        made = self.certificates.register("factory", self.authority.pem, self.authority.verification(code), self.bed.clock.wall())
        self.serial = self.bed.loop.finish(made).serial

    def allow(self, filter: str, action: str = "*") -> None:
        self.bed.loop.finish(self.bed.node.registers.policies.put(AccessRule("cert:*", action, filter)))

    def device(self, name: str = "d1", **options: Any) -> Pair:
        return self.authority.issue(name, client=True, **options)

    def refused(self, pair: Pair, client: str = "c", **fields: Any) -> int:
        party = self.bed.dial(certificate=pair.der, host="192.0.2.9")
        party.connect(client, **fields)
        assert party.connack is not None
        assert party.closed is (party.connack.reason_code != 0)
        return party.connack.reason_code

    def serial_of(self, name: str) -> str:
        devices, _ = self.certificates.devices("", 0, 100, self.bed.clock.wall())
        return next(device.serial for device in devices if device.name == name)

    def change(self, change: Any) -> None:
        assert self.bed.loop.finish(change)
        self.bed.advance(0.06)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.bed.close()


def test_a_device_is_its_certificate_and_does_what_rules_allow(site: Site) -> None:
    site.allow("own/${user}/#")
    party = site.bed.connect("any client id", certificate=site.device().der)
    assert party.connection.principal.name == "cert:factory/d1"
    assert party.subscribe("own/d1/in", "own/d2/in") == (1, ReasonCode.NOT_AUTHORIZED)
    party.exchange("own/d1/in", b"x")
    assert party.payloads() == [b"x"]
    event = site.bed.events()[-1]
    assert event.principal == "cert:factory/d1"
    assert json.loads(event_json(event))["certificateChainSn"] == f"{site.serial_of('d1')},{site.serial}"


def test_without_a_rule_it_may_do_nothing(site: Site) -> None:
    assert site.bed.connect("c", certificate=site.device().der).subscribe("a") == (ReasonCode.NOT_AUTHORIZED,)


def test_a_user_name_alone_says_nothing(site: Site) -> None:
    party = site.bed.connect("c", certificate=site.device().der, user_name="somebody else")
    assert (party.connection.principal.name, party.connection.principal.user) == ("cert:factory/d1", "d1")


def test_a_password_says_who_it_is_and_the_certificate_counts_as_well(site: Site) -> None:
    key = site.bed.loop.finish(site.bed.keyring.create("device", 0))
    login: dict[str, Any] = {"user_name": f"Signature|{key.id}|bed", "password": sign(key.secret.reveal().encode(), "c")}
    pair = site.device()
    party = site.bed.connect("c", certificate=pair.der, **login)
    assert party.connection.principal.name == key.id
    assert site.refused(pair, **login | {"password": b"wrong"}) == ReasonCode.BAD_USER_NAME_OR_PASSWORD
    site.change(site.certificates.set_device(site.serial, site.serial_of("d1"), active=False))
    assert party.closed
    assert site.refused(pair, **login) == ReasonCode.NOT_AUTHORIZED


def test_it_registers_itself_at_the_first_connect_that_succeeds(site: Site) -> None:
    assert site.refused(site.device("d0"), user_name="x", password=b"wrong") != 0
    assert site.certificates.devices("", 0, 9, 0)[0] == []
    site.bed.connect("c", certificate=site.device().der)
    assert [device.name for device in site.certificates.devices("", 0, 9, 0)[0]] == ["d1"]


@pytest.mark.parametrize("what", ["authority", "certificate"])
@pytest.mark.parametrize("how", ["inactive", "deleted"])
def test_what_is_refused_is_refused_at_connect_and_live_connections_close(site: Site, what: str, how: str) -> None:
    pair, certificates = site.device(), site.certificates
    party, other = site.bed.connect("c", certificate=pair.der), site.bed.connect("d", certificate=site.device("d2").der)
    serial = site.serial_of("d1")
    site.change(
        {
            ("authority", "inactive"): lambda: certificates.set_authority(site.serial, active=False),
            ("authority", "deleted"): lambda: certificates.delete_authority(site.serial),
            ("certificate", "inactive"): lambda: certificates.set_device(site.serial, serial, active=False),
            ("certificate", "deleted"): lambda: certificates.delete_device(site.serial, serial),
        }[what, how]()
    )
    assert party.closed
    assert other.closed is (what == "authority")
    assert site.refused(pair) == ReasonCode.NOT_AUTHORIZED
    if how == "inactive":
        site.change(certificates.set_authority(site.serial, active=True))
        site.change(certificates.set_device(site.serial, serial, active=True))
        assert site.refused(pair) == 0


def test_a_second_certificate_of_the_same_name_goes_on_when_one_is_refused(site: Site) -> None:
    old, new = site.bed.connect("c", certificate=site.device().der), None
    serial = site.serial_of("d1")
    new = site.bed.connect("d", certificate=site.device().der)
    site.change(site.certificates.delete_device(site.serial, serial))
    assert (old.closed, new.closed) == (True, False)


def test_a_certificate_that_is_refused_while_its_connect_is_under_way_does_not_come_in(site: Site) -> None:
    pair = site.device()
    site.bed.connect("c", certificate=pair.der).disconnect()
    serial = site.serial_of("d1")
    site.bed.log.held = True
    party = site.bed.dial(certificate=pair.der)
    party.connect("c")
    assert party.connack is None
    site.bed.loop.finish(site.certificates.set_device(site.serial, serial, active=False))
    site.bed.log.release_held()
    site.bed.settle()
    assert party.closed
    assert party.inbox[0].reason_code == ReasonCode.NOT_AUTHORIZED  # type: ignore[union-attr]


def test_a_session_outlives_its_certificate(site: Site) -> None:
    site.allow("own/${user}/#", "subscribe")
    site.allow("#", "publish")
    party = site.bed.connect("c", certificate=site.device().der, **KEEP)
    assert party.subscribe("own/d1/a") == (1,)
    party.drop()
    site.bed.advance(1)
    site.bed.crash()
    site.certificates = site.bed.node.registers.certificates
    site.bed.clock.ahead = time.time_ns() // 1_000_000 - site.bed.clock.raw()
    sender = site.bed.connect("s", certificate=site.device("d2").der)
    sender.exchange("own/d1/a", b"kept")
    again = site.bed.connect("c", certificate=site.device().der, **KEEP)
    assert again.connack is not None
    assert again.connack.session_present
    assert again.payloads() == [b"kept"]
    assert site.refused(site.device("d3"), "c") == ReasonCode.NOT_AUTHORIZED, "the client id is another principal's"


def test_a_connection_ends_with_its_certificate(site: Site) -> None:
    party = site.bed.connect("c", certificate=site.device().der, keep_alive=0)
    end = datetime.now(UTC) + timedelta(days=10)
    site.bed.clock.ahead += int((end.timestamp() - 30) * 1000) - site.bed.clock.raw()
    site.bed.advance(25)
    assert not party.closed
    site.bed.advance(70)
    assert party.closed


def test_certificates_of_strangers_are_refused(site: Site, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("d1", client=True)
    assert site.refused(stranger) == ReasonCode.NOT_AUTHORIZED
    key = site.bed.loop.finish(site.bed.keyring.create("device", 0))
    login: dict[str, Any] = {"user_name": f"Signature|{key.id}|bed", "password": sign(key.secret.reveal().encode(), "c")}
    assert site.refused(stranger, **login) == ReasonCode.NOT_AUTHORIZED


def test_one_of_the_files_authorities_is_no_login(tmp_path: Path) -> None:
    site = Site(tmp_path, tls=TlsSettings(client_ca=tmp_path / "any.pem"))
    other = Authority(tmp_path, "other").issue("d1", client=True)
    assert site.refused(other) == ReasonCode.NOT_AUTHORIZED
    key = site.bed.loop.finish(site.bed.keyring.create("device", 0))
    login: dict[str, Any] = {"user_name": f"Signature|{key.id}|bed", "password": sign(key.secret.reveal().encode(), "c")}
    assert site.bed.connect("c", certificate=other.der, **login).connection.certificate == ""
    site.bed.close()


def test_serial_numbers_are_as_people_type_them(site: Site) -> None:
    assert read_serial(":".join(site.serial[i : i + 2].upper() for i in range(0, len(site.serial), 2))) == site.serial
