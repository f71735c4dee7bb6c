"""What is registered on one node counts on all of them: keys, rules, identities, certificates, what was revoked and blocked."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.auth.client_certificates import Holder
from gateway.auth.tokens import Token
from gateway.cluster.registers import AT_MOST, AT_MOST_LATE, pause
from gateway.protocol.packets import Ack
from schemas.identities import AccessRule, Principal
from schemas.reasons import ReasonCode
from streams.store import Document
from tests.support.certificates import Authority
from tests.support.many_bed import ManyBed

Make = Callable[..., ManyBed]


def test_a_token_that_is_revoked_on_one_ends_its_connections_on_all(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    here, there, now = one.node.registers, two.node.registers, two.node.clock.wall()
    key = bed.loop.finish(here.keyring.create("device", 0)).id
    bed.advance(1)
    text, other = (here.mint.apply(key, ["a"], "R", now + 3_600_000, now) for _ in range(2))
    user = f"Token|{key}|{there.keyring.instance_id}"
    party = two.connect("c", user_name=user, password=f"R|{text}".encode())
    stays = two.connect("d", user_name=user, password=f"R|{other}".encode())
    token = here.mint.open(text)
    assert isinstance(token, Token)
    bed.loop.finish(here.mint.revoke(token, now))
    bed.advance(5)
    assert party.closed
    assert not stays.closed


def test_a_client_that_is_blocked_on_one_is_closed_on_all(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    party, stays = two.connect("c"), two.connect("d")
    bed.loop.finish(one.node.registers.identities.block("c", 0))
    bed.advance(5)
    assert party.closed
    assert not stays.closed
    refused = two.dial()
    refused.connect("c")
    assert refused.closed


def test_what_is_registered_on_one_counts_on_all(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    party = two.connect("c")
    bed.loop.finish(one.node.registers.policies.put(AccessRule("anonymous", "publish", "forbidden", "deny")))
    key = bed.loop.finish(one.node.registers.keyring.create("device", 0))
    bed.advance(1)
    assert two.node.registers.keyring.secret_or_dummy(key.id)[1]
    party.publish("forbidden", b"", 1)
    bed.settle()
    assert [ack.reason_code for ack in party.take(Ack)] == [ReasonCode.NOT_AUTHORIZED]
    bed.loop.finish(one.node.registers.keyring.revoke(key.id))
    bed.loop.finish(one.node.registers.policies.drop(AccessRule("anonymous", "publish", "forbidden", "deny")))
    bed.advance(1)
    assert not two.node.registers.keyring.secret_or_dummy(key.id)[1]
    party.exchange("forbidden", b"not any more")


def test_a_bearer_key_comes_and_goes_on_all_nodes(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    key, secret = bed.loop.finish(one.node.registers.bearers.create("x", "read", 0, 0))
    bed.advance(1)
    found = two.node.registers.bearers.find(secret.reveal(), 0)
    assert found == key
    assert two.node.access.may(Principal("bearer:" + key.id), "publish", "t")
    bed.loop.finish(one.node.registers.bearers.revoke(key.id))
    bed.advance(1)
    assert two.node.registers.bearers.find(secret.reveal(), 0) is None
    assert not two.node.access.may(Principal("bearer:" + key.id), "publish", "t")


def test_client_certificates_are_refused_and_taken_on_all_nodes(make_many: Make, tmp_path: Path) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    here, there = one.node.registers.certificates, two.node.registers.certificates
    factory, now = Authority(tmp_path, "factory"), int(time.time() * 1000)  # certificates are made for today
    made = bed.loop.finish(here.register("factory", factory.pem, factory.verification(here.code), now))
    bed.advance(1)
    assert there.trusted == here.trusted
    pair = factory.issue("d1", client=True)
    holder = there.find(pair.der, now)
    assert isinstance(holder, Holder)
    before = here.version
    assert bed.loop.finish(there.admit(holder, now))
    serial = holder.key.partition("/")[2]
    bed.advance(1)
    assert here.is_current(holder.key)
    assert here.version == before, "nobody has waited for a certificate that registers itself"
    bed.loop.finish(here.set_device(made.serial, serial, active=False))
    bed.advance(1)
    assert not there.is_current(holder.key)
    assert there.find(pair.der, now) == "inactive certificate"
    assert not two.node.access.is_known(Principal(holder.principal, "device"))
    bed.loop.finish(here.set_device(made.serial, serial, active=True))
    bed.advance(1)
    assert there.is_current(holder.key)
    assert two.node.access.is_known(Principal(holder.principal, "device"))
    assert there._holders == here._holders == {holder.principal: [0, 1]}
    bed.loop.finish(here.delete_authority(made.serial))
    bed.advance(1)
    assert there.trusted == ""
    assert not there.is_current(holder.key)
    assert there._holders == here._holders
    assert there._digests == here._digests


@pytest.mark.parametrize(("took", "waits"), [(0.0, AT_MOST), (0.01, AT_MOST), (0.3, 1.5), (60.0, AT_MOST_LATE)])
def test_registers_that_take_long_are_read_less_often(took: float, waits: float) -> None:
    assert pause(took) == waits


def test_nonces_make_nobody_read_the_registers_again(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    bed.advance(1)
    seen: list[int] = []
    load = two.node.registers.load

    async def counted() -> None:
        seen.append(1)
        await load()

    two.node.registers.load = counted  # type: ignore[method-assign]
    bed.loop.finish(one.node.store.add_document(Document("nonce", "a", expires_at=2**50)))
    bed.advance(2)
    assert seen == []
    bed.loop.finish(one.node.store.add_document(Document("traced", "a", b"1")))
    bed.advance(2)
    assert seen == []
    bed.loop.finish(one.node.store.add_document(Document("other", "a")))
    bed.advance(2)
    assert seen == [1]
