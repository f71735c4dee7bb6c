"""Topic filters: which are well formed, shared ones in all the ways in which they can be wrong."""

from __future__ import annotations

import itertools

import pytest

from schemas.topics import SharedFilter, is_topic_filter, is_topic_name, parse_subscription

MALFORMED_FILTERS = ["a#", "#a", "a/#/b", "#/a", "##", "a/##", "#/", "#/#", "+a", "a+", "a/+b", "a/b+/c", "++", "+/++", "+#", "#+", "a/+#"]
WELL_FORMED_FILTERS = ["a", "/", "//", "#", "+", "a/#", "/#", "+/#", "+/+", "a/+/b", "/+", "+/", " ", "a b", "$a/#", "$shared/g/a", "$SHARE", "é/+"]

BAD_NAMES = ["", "+", "#", "+g", "g+", "g#", "#g", "g+h", "g#h", "++", "##"]
GOOD_NAMES = ["g", " ", "$share", "é", "$", "a b"]
BAD_INNER = ["", *MALFORMED_FILTERS]
MALFORMED_SHARES = [
    "$share",
    "$share/",
    *(f"$share/{name}" for name in (*BAD_NAMES, *GOOD_NAMES) if name),
    *(f"$share/{name}/{inner}" for name, inner in itertools.product(BAD_NAMES, ("a", "a/b", "+", "#", "/", "", "a#"))),
    *(f"$share/{name}/{inner}" for name, inner in itertools.product(GOOD_NAMES, BAD_INNER)),
]


@pytest.mark.parametrize("topic_filter", MALFORMED_FILTERS)
def test_wildcards_that_do_not_stand_alone(topic_filter: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2]"""
    assert not is_topic_filter(topic_filter)
    assert parse_subscription(topic_filter) is None


@pytest.mark.parametrize("topic_filter", WELL_FORMED_FILTERS)
def test_well_formed_filters_are_themselves(topic_filter: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2]: what only looks like a share is a filter like others."""
    assert parse_subscription(topic_filter) == SharedFilter("", topic_filter)


def test_malformed_shares() -> None:
    """[MQTT-4.8.2-1] [MQTT-4.8.2-2]: no name, a name with a wildcard, no filter, a filter that is malformed itself."""
    assert len(set(MALFORMED_SHARES)) > 200
    for share in MALFORMED_SHARES:
        assert parse_subscription(share) is None, share
    for nul in ("$share/g/\x00", "$share/g/a\x00"):
        assert parse_subscription(nul) is None


def test_well_formed_shares_come_apart() -> None:
    """[MQTT-4.8.2-1] [MQTT-4.8.2-2]"""
    for name, inner in itertools.product(GOOD_NAMES, WELL_FORMED_FILTERS):
        assert parse_subscription(f"$share/{name}/{inner}") == SharedFilter(name, inner)


def test_names_have_no_wildcard() -> None:
    """[MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2]"""
    assert not any(is_topic_name(name) for name in ("", "+", "#", "a+", "a/#", "a\x00"))
    assert all(is_topic_name(name) for name in ("a", "/", " ", "$a", "a//b"))
