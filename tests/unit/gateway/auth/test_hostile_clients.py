"""Three hundred hostile client ids against twenty shapes of rules: what may be done is held against an oracle that reads rules literally.

The oracle shares no code with what it judges: it takes a rule apart level by level, knows the grammar of client ids by a regular expression of
its own, and asks of a filter whether any topic that it reaches, of all that are tried, is one that the rule doesn't give.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final

import pytest

from gateway.auth.access import CONTROL_TOPICS, Access
from schemas.identities import AccessRule, Principal
from tests.unit.gateway.auth.keystore import new_keyring

SHAPES: Final = (
    "${client}", "${client}/#", "${client}/+", "own/${client}", "own/${client}/#", "own/${client}/+/x", "own/+/${client}", "own/${client}/${client}",
    "+/${client}", "+/${client}/#", "${group}/${device}", "${group}/#", "own/${group}/${device}/#", "own/${device}/#", "${user}", "own/${user}/#",
    "${user}/${client}/#", "own/p2p/${client}", "own/x/${device}/+", "own/${group}/+/${user}",
)  # fmt: skip

_PARTS: Final = (
    "", "+", "#", "/", "$", "%", "{", "}", "*", "?", ".", "..", "~", "\\", "|", ":", ",", ";", "&", "=", "@", "@@@", " ", "\t", "\n", "\r",
    "\x00", "\x01", "\x1b", "\x7f", "\x85", "\xa0", "\u200b", "\u2028", "\u202e", "\ufeff", "\uff0b", "\uff03", "\u2215", "\u212a", "\U0001f511",
)  # fmt: skip
"""Wildcards, separators, what prints as nothing, and what looks like or normalises to a wildcard or a slash."""

HOSTILE: Final = tuple(
    dict.fromkeys(
        (
            *_PARTS,
            *(f"dev{part}" for part in _PARTS),
            *(f"GID_g12@@@{part}" for part in _PARTS),
            *(f"GID_g12{part}@@@dev" for part in _PARTS),
            *(f"{level}/{sign}" for level in ("victim", "GID_g12", "own", "..", "$SYS", "") for sign in ("+", "#", "x", "+/#", "", "victim")),
            *(f"${{{name}}}{tail}" for name in ("client", "group", "device", "user", "") for tail in ("", "/#", "/+", "x")),
            *(f"{group}@@@{device}" for group in ("+", "#", "", "GID_", "gid_g12", "GID-g12/#", "$SYS") for device in ("+", "#", "", "dev", "a@@@b")),
            *(sign * count for sign in "+#/$" for count in (2, 64)),
            *("GID_g12@@@@", "GID_g12@@@@@@", "@@@GID_g12@@@dev", "GID_g12@@@dev@@@x", "GID_g12@@dev", "GID_g12 @@@dev", "GID_victim@@@dev/../x"),
            *(f"$share/{group}/{rest}" for group in ("g", "", "+") for rest in ("#", "victim", "")),
            *("$SYS/broker/x", "$SYS", "$share", "$sluiceway", "$", "$sys/x", "%SYS", "__internal", "%RETRY%g", "victim\x00", "VICTIM", "victim "),
            *("x" * 65, "x" * 65_535, "GID_" + "g" * 70 + "@@@dev", "GID_g12@@@" + "d" * 70, "a/" * 200, "+/" * 50 + "#"),
            *("é" * 64, "e\u0301", "\xe9"),
            *("../victim", "own/victim", "own/p2p/victim", "p2p", "p2p/victim", "own", "dev/#", "dev/+"),
        )
    )
)

VICTIMS: Final = (
    "victim", "victim/a", "victim/a/x", "own", "own/victim", "own/victim/x", "own/victim/a/x", "own/victim/victim", "own/p2p/victim",
    "own/x/victim/a", "a/victim", "a/victim/b", "GID_victim/dev", "GID_victim", "own/GID_victim/dev", "own/GID_victim/dev/a",
    "own/GID_victim/a/victim", "GID_g12/victim", "own/GID_g12/victim/a", "x/y/z", "other", "$SYS/broker/x", "$SYS/victim",
    "$sluiceway/x", "$SYS/uploadToken", "/", "//", "/victim",
)  # fmt: skip
_PLAIN: Final = re.compile("[^+#\x00]*", re.DOTALL)
_CLIENT: Final = re.compile(r"(?P<group>GID[_-][A-Za-z0-9_-]{3,60})@@@(?P<device>[A-Za-z0-9_-]+)", re.ASCII)


def values(client: str, user: str) -> dict[str, str]:
    found = _CLIENT.fullmatch(client)
    return {"${client}": client, "${user}": user, "${group}": found["group"] if found else "", "${device}": found["device"] if found else ""}


def gives(shape: str, named: dict[str, str], topic: str) -> bool:
    """Whether a rule of this shape gives the topic, read literally: a variable is the one level that is its value, or nothing at all."""
    levels = topic.split("/")
    for index, level in enumerate(shape.split("/")):
        if level == "#":
            return True
        if index == len(levels) or (index == 0 and level == "+" and topic[:1] == "$"):
            return False
        if level in named:
            value = named[level]
            if levels[index] != value or not value or not _PLAIN.fullmatch(value) or (index == 0 and value[0] == "$"):
                return False
        elif level not in ("+", levels[index]):
            return False
    return len(levels) == shape.count("/") + 1


def written(shape: str, named: dict[str, str]) -> str:
    """The rule as text with its values put in as they are: what somebody hopes that is done."""
    return re.sub(r"\$\{\w+\}", lambda found: named[found[0]], shape)


def topics_of(shape: str, named: dict[str, str]) -> Iterator[str]:
    """The client's own, as far as they are topics: with wildcards of the rule and of the id filled in."""
    text = written(shape, named)
    for part in ("a", "victim"):
        topic = re.sub(r"[+#]", part, text)
        yield from (topic for topic in (topic, topic + "/x", topic.rstrip("/")) if topic and "\x00" not in topic)


@functools.cache
def reach(topic_filter: str) -> re.Pattern[str]:
    """The topics that a filter reaches, as a regular expression. One that begins with a wildcard reaches no topic that begins with `$`."""
    parts = ["[^/]*" if level == "+" else re.escape(level) for level in topic_filter.removesuffix("#").removesuffix("/").split("/")]
    text = "/".join(parts) + ("(/.*)?" if topic_filter.endswith("/#") else "")
    return re.compile(("(?![$])" if topic_filter[0] in "+#" else "") + (".*" if topic_filter == "#" else text), re.DOTALL)


def reaches(topic_filter: str, topic: str) -> bool:
    return reach(topic_filter).fullmatch(topic) is not None


def is_closed(topic: str, action: str) -> bool:
    first = topic.partition("/")[0]
    return first in ("$share", "$sluiceway") or (first == "$SYS" and action == "publish")


def test_there_are_three_hundred_ids_and_twenty_shapes():
    assert len(HOSTILE) == len(set(HOSTILE)) == 300
    assert len(SHAPES) == len(set(SHAPES)) == 20


@pytest.mark.parametrize(
    ("topic_filter", "topic", "reached"),
    [
        ("#", "a/b", True),
        ("a/#", "a", True),
        ("a/#", "ab", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("+", "$x", False),
        ("a.", "ab", False),
    ],
)
def test_the_oracle_reads_filters(topic_filter, topic, reached):
    assert reaches(topic_filter, topic) is reached


@pytest.fixture
async def keyring(tmp_path):
    return await new_keyring(tmp_path)


@pytest.fixture
async def key(keyring):
    return (await keyring.create("device", 0)).id


@pytest.mark.slow
async def test_no_hostile_client_id_is_allowed_what_its_rule_does_not_give(keyring, key):
    """6,000 of an id and a rule: publishing and reading are the oracle's to the topic, and a filter reaches nothing that the rule doesn't give."""
    pairs = allowed = 0
    for shape in SHAPES:
        access = Access(keyring, [AccessRule(key, "*", shape)])
        for hostile in HOSTILE:
            pairs += 1
            principal, named = Principal(key, client=hostile, user=hostile), values(hostile, hostile)
            topics = dict.fromkeys((*VICTIMS, *topics_of(shape, named)))
            given = {topic for topic in topics if gives(shape, named, topic)}
            for topic in topics:
                for action in ("publish", "read"):
                    expected = (topic in given and not is_closed(topic, action)) or (action == "publish" and topic in CONTROL_TOPICS)
                    assert access.may(principal, action, topic) is expected, (hostile, shape, action, topic)
            allowed += len(given)
            text = written(shape, named)
            for wanted in ("#", "+/#", "own/#", "own/+/#", "+/+", "victim/#", "$SYS/#", text, text + "/#", text.rpartition("/")[0] + "/#", hostile):
                is_let_in = access.may(principal, "subscribe", wanted)
                if is_let_in:
                    assert [topic for topic in topics if topic not in given and reaches(wanted, topic)] == [], (hostile, shape, wanted)
                if wanted.partition("/")[0] != "$share":
                    assert access.may(principal, "subscribe", "$share/g/" + wanted) is is_let_in, (hostile, shape, wanted)
    assert pairs == 6_000
    assert allowed > 5_000, "an oracle that gives nothing shows nothing"


@pytest.mark.slow
async def test_no_hostile_client_id_escapes_a_rule_that_denies(keyring, key):
    """Whatever the id, what the rule names for it, read literally or as written, stays closed."""
    pairs = closed = 0
    for shape in SHAPES:
        access = Access(keyring, [AccessRule(key, "*", "#"), AccessRule(key, "*", shape, "deny")])
        for hostile in HOSTILE:
            pairs += 1
            principal, named = Principal(key, client=hostile, user=hostile), values(hostile, hostile)
            text = written(shape, named)
            for topic in dict.fromkeys((*VICTIMS, *topics_of(shape, named), text)):
                if not topic or re.search("[+#\x00]", topic) or topic in CONTROL_TOPICS:
                    continue
                if gives(shape, named, topic) or topic == text:
                    closed += 1
                    for action in ("publish", "read", "subscribe"):
                        assert not access.may(principal, action, topic), (hostile, shape, action, topic)
    assert pairs == 6_000
    assert closed > 5_000
