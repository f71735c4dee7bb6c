"""Rules with variables: what is well formed, and that nobody's client id or user name opens more than one level for one client."""

import itertools

import pytest

from schemas.identities import AccessRule, Principal
from schemas.policies import filter_problem, rule_problem, substitute, values_of
from schemas.topics import is_topic_filter, matches

CLIENT = Principal("k", client="GID_g12@@@dev", user="u")


@pytest.mark.parametrize(
    ("rule_filter", "fine"),
    [
        ("a/b", True),
        ("a/+/#", True),
        ("${client}", True),
        ("a/${client}/${group}/${device}/${user}/#", True),
        ("a/x${client}", False),
        ("a/${client}x", False),
        ("a/${clientid}", False),
        ("a/${", False),
        ("$share/g/a", False),
        ("a/#/b", False),
        ("", False),
        ("a" * 1025, False),
    ],
)
def test_filters_of_rules(rule_filter, fine):
    assert (filter_problem(rule_filter) == "") is fine


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (AccessRule("", "*", "a"), "principal"),
        (AccessRule("p" * 257, "*", "a"), "principal"),
        (AccessRule("a\x00b", "*", "a"), "principal"),
        (AccessRule("p", "write", "a"), "action"),
        (AccessRule("p", "*", "a", "permit"), "effect"),
        (AccessRule("p", "*", "a/#/b"), "filter"),
    ],
)
def test_a_rule_that_is_not_valid_names_its_field(rule, field):
    assert rule_problem(rule)[0] == field


def test_a_valid_rule_has_no_problem():
    assert rule_problem(AccessRule("user:x", "publish", "a/${user}/#")) is None


def test_variables_take_their_values():
    values = values_of(CLIENT)
    assert substitute("a/${client}/${group}/${device}/${user}/#", values, denies=False) == "a/GID_g12@@@dev/GID_g12/dev/u/#"


def test_a_variable_without_a_value_opens_nothing_and_closes_more():
    values = values_of(Principal("k", client="plain"))
    assert substitute("a/${group}/x", values, denies=False) is None
    assert substitute("a/${group}/x", values, denies=True) == "a/#"
    assert substitute("${user}/x", values, denies=True) == "#"


HOSTILE = sorted(
    {
        *("".join(parts) for parts in itertools.product(("", "+", "#", "/", "a", "$SYS", "..", "\x00", "${client}", "*", " "), repeat=2)),
        *(f"dev/{tail}" for tail in ("", "+", "#", "a", "../b")),
        *(f"{head}@@@{tail}" for head in ("GID_g12", "+", "#", "", "GID_g12/#", "$SYS") for tail in ("+", "#", "a/b", "", "dev", "a@@@b")),
        *(chr(code) for code in (*range(0x21, 0x30), *range(0x3A, 0x41), *range(0x5B, 0x61), 0x7B, 0x7D, 0xFF0B, 0xFF03, 0x2215, 0xFEFF)),
        *(sign * count for sign in "+#/$" for count in (2, 3, 64)),
        *(f"{level}{sign}" for level in ("x", "own", "t") for sign in ("/+", "/#", "+", "#", "/", "//", "/x/#", "$share/g/#")),
        *(f"$share/{group}/{rest}" for group in ("g", "", "+") for rest in ("#", "+", "a", "")),
        *(f"user{n}/#" for n in range(40)),
        *(f"n{n}+" for n in range(40)),
    }
)
SHAPES = [
    "${client}",
    "${client}/#",
    "${client}/+",
    "own/${client}",
    "own/${client}/#",
    "own/${client}/+/x",
    "own/+/${client}",
    "own/${client}/${client}",
    "+/${client}",
    "+/${client}/#",
    "${group}/${device}",
    "${group}/#",
    "own/${group}/${device}/#",
    "own/${device}/#",
    "${user}",
    "own/${user}/#",
    "${user}/${client}/#",
    "own/p2p/${client}",
    "own/x/${device}/+",
    "own/${group}/+/${user}",
]
OTHERS = ["victim", "own/victim", "own/victim/x", "own/victim/a/x", "own/p2p/victim", "victim/a", "own/x/victim/a", "a/victim", "own"]
OTHERS += ["x/y/z", "$SYS/broker/x"]


def test_there_are_as_many_hostile_ids_and_shapes_as_were_asked_for():
    assert len(HOSTILE) >= 300
    assert len(SHAPES) == 20


@pytest.mark.parametrize("shape", SHAPES)
def test_no_hostile_client_id_reaches_what_is_anothers(shape):
    """What a rule opens for a client has its variables' values as whole levels, however the id is written."""
    for hostile in HOSTILE:
        values = values_of(Principal("k", client=hostile, user=hostile))
        opened = substitute(shape, values, denies=False)
        if opened is None:
            continue
        assert is_topic_filter(opened)
        assert opened.count("/") == shape.count("/")
        assert [level for level in opened.split("/") if level in ("+", "#")] == [level for level in shape.split("/") if level in ("+", "#")]
        for topic in OTHERS:
            if set(values.values()) & set(topic.split("/")):
                continue  # that is its own
            assert not matches(opened, topic), (hostile, opened, topic)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rule_that_denies_holds_for_every_client_id(shape):
    """No id makes a denial smaller: it covers the id's own level, or all that lies there."""
    for hostile in HOSTILE:
        values = values_of(Principal("k", client=hostile, user=hostile))
        closed = substitute(shape, values, denies=True)
        assert closed is not None
        assert is_topic_filter(closed)
        opened = substitute(shape, values, denies=False)
        assert closed == opened or (opened is None and closed.endswith("#"))
