"""Access: default deny, denial wins, an allow list takes the default's place; `covers` against the plain definition of matching."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.access import Access, covers
from schemas.identities import ANONYMOUS, AccessRule, Principal
from schemas.topics import matches
from tests.unit.gateway.auth.keystore import new_keyring

ANON = Principal(ANONYMOUS, "anonymous")


@pytest.fixture
async def keyring(tmp_path):
    return await new_keyring(tmp_path)


@pytest.fixture
async def device(keyring):
    return Principal((await keyring.create("device", 0)).id, "device")


def rules(*lines):
    return [AccessRule(*line.split()) for line in lines]


@pytest.mark.parametrize(
    ("action", "topic", "allowed"),
    [
        ("publish", "a/b", True),
        ("publish", "a/p2p/device", True),
        ("publish", "$other/a", True),
        ("publish", "$SYS/uploadToken", True),
        ("publish", "$SYS/getOfflineMsg", True),
        ("publish", "$SYS/enableOrderMsg", True),
        ("publish", "$SYS/broker/uptime", False),
        ("publish", "$SYS", False),
        ("publish", "$share/g/a", False),
        ("publish", "$sluiceway/x", False),
        ("subscribe", "#", True),
        ("subscribe", "+/b", True),
        ("subscribe", "$share/g/a/#", True),
        ("subscribe", "$SYS/#", True),
        ("subscribe", "$share/g/$SYS/#", True),
        ("subscribe", "$sluiceway/#", False),
        ("subscribe", "$share/g/$sluiceway/#", False),
        ("subscribe", "$share/g", False),
        ("subscribe", "a/#/b", False),
        ("read", "a/b", True),
        ("read", "$SYS/broker/uptime", True),
        ("read", "$sluiceway/x", False),
    ],
)
async def test_what_a_fresh_key_and_the_anonymous_principal_may(keyring, device, action, topic, allowed):
    access = Access(keyring)
    assert access.may(device, action, topic) is allowed
    assert access.may(ANON, action, topic) is allowed
    assert access.may_read_all(device)


async def test_an_administrator_may_do_all(keyring):
    principal = Principal((await keyring.create("administrator", 0)).id, "administrator")
    access = Access(keyring, rules("* * # deny"))
    assert access.may(principal, "publish", "$SYS/broker/x")
    assert access.may(principal, "subscribe", "#")
    assert access.may_read_all(principal)


async def test_a_key_that_nobody_made_or_that_is_revoked_may_nothing(keyring, device):
    access = Access(keyring)
    assert not access.may(Principal("nobody", "administrator"), "publish", "a")
    before = access.version
    await keyring.revoke(device.name)
    assert access.version != before
    assert not access.may(device, "publish", "a")
    assert not access.may(device, "publish", "$SYS/uploadToken")


async def test_denial_wins_over_every_allow(keyring, device):
    access = Access(keyring, rules(f"{device.name} * # allow", "* publish secret/# deny"))
    assert access.may(device, "publish", "open")
    assert not access.may(device, "publish", "secret/x")
    assert not access.may(device, "publish", "secret")
    assert access.may(device, "subscribe", "secret/#")


async def test_an_allow_list_takes_the_place_of_the_default(keyring, device):
    access = Access(keyring, rules(f"{device.name} publish sensors/+/temperature", f"{device.name} subscribe commands/#"))
    assert access.may(device, "publish", "sensors/1/temperature")
    assert not access.may(device, "publish", "sensors/1/pressure")
    assert not access.may(device, "publish", "commands/x")
    assert access.may(device, "subscribe", "commands/+/x")
    assert access.may(device, "read", "commands/1/x")
    assert not access.may(device, "subscribe", "#")
    assert not access.may(device, "subscribe", "+/x")
    assert not access.may(device, "subscribe", "$SYS/#")
    assert access.may(device, "publish", "$SYS/getOfflineMsg")
    assert access.may(ANON, "publish", "anything")


async def test_a_rule_for_all_is_a_rule_for_each(keyring, device):
    access = Access(keyring, rules("* subscribe public/#", f"{device.name} publish mine/#"))
    assert access.may(device, "subscribe", "public/a")
    assert access.may(device, "publish", "mine/a")
    assert not access.may(device, "publish", "public/a")
    assert access.may(ANON, "subscribe", "public/a")
    assert not access.may(ANON, "publish", "mine/a")


async def test_a_subscription_that_reaches_into_a_denied_part_is_let_in_and_filtered(keyring, device):
    access = Access(keyring, rules("* subscribe test/nosubscribe deny"))
    assert not access.may(device, "subscribe", "test/nosubscribe")
    assert not access.may(device, "subscribe", "$share/g/test/nosubscribe")
    assert access.may(device, "subscribe", "#")
    assert not access.may(device, "read", "test/nosubscribe")
    assert access.may(device, "read", "test/other")
    assert not access.may_read_all(device)


async def test_no_rule_opens_a_reserved_level(keyring, device):
    access = Access(keyring, rules("* * $SYS/# allow", "* * $sluiceway/# allow"))
    assert access.may(device, "read", "$SYS/broker/x")
    assert not access.may(device, "publish", "$SYS/broker/x")
    assert not access.may(device, "subscribe", "$sluiceway/#")


async def test_reading_alone_can_be_denied(keyring):
    access = Access(keyring, rules("anonymous read a/secret deny"))
    assert access.may(ANON, "subscribe", "a/secret")
    assert not access.may(ANON, "read", "a/secret")


LEVELS = ("a", "b", "+", "#", "", "$x")
FILTERS = [
    "/".join(levels) for length in (1, 2, 3) for levels in itertools.product(LEVELS, repeat=length) if "#" not in levels[:-1] and "/".join(levels)
]
TOPICS = [
    "/".join(levels) for length in (1, 2, 3, 4) for levels in itertools.product(("a", "b", "", "$x", "other"), repeat=length) if "/".join(levels)
]


@given(st.sampled_from(FILTERS), st.sampled_from(FILTERS))
def test_a_filter_that_covers_another_matches_all_that_it_matches(outer, inner):
    if covers(outer, inner):
        assert all(matches(outer, topic) for topic in TOPICS if matches(inner, topic))


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("#", "a/b", True),
        ("#", "#", True),
        ("a/#", "a", True),
        ("a/#", "a/#", True),
        ("a/#", "a/+/b/#", True),
        ("a/+", "a/+", True),
        ("a/+", "a/b", True),
        ("a/+", "a/#", False),
        ("a/b", "a/+", False),
        ("a/b", "a/b/#", False),
        ("+", "a/b", False),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
    ],
)
def test_covers(outer, inner, expected):
    assert covers(outer, inner) is expected
