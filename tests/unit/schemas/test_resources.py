"""The grammar of names: what is a group id, a parent topic, a client id, and in which words the rest is refused."""

import pytest

from schemas.resources import client_id_problem, group_id_problem, instance_id_problem, parent_topic_problem, split_client_id


@pytest.mark.parametrize(
    ("group", "fine"),
    [
        ("GID_abc", True),
        ("GID-abc", True),
        ("GID_" + "a" * 60, True),
        ("GID_" + "a" * 61, False),
        ("GID_ab", False),
        ("GID_", False),
        ("gid_abc", False),
        ("GIDabcde", False),
        ("GID_a b", False),
        ("GID_a/b", False),
        ("GID_äöü", False),
        ("GID_abc\n", False),
        ("", False),
    ],
)
def test_group_ids(group, fine):
    assert (group_id_problem(group) == "") is fine


@pytest.mark.parametrize(
    ("topic", "fine"),
    [("abc", True), ("a" * 64, True), ("A-b_9", True), ("ab", False), ("a" * 65, False), ("a/b", False), ("", False), ("abc\n", False)],
)
def test_parent_topics(topic, fine):
    assert (parent_topic_problem(topic) == "") is fine


@pytest.mark.parametrize(
    ("client", "parts"),
    [
        ("GID_test@@@dev-1", ("GID_test", "dev-1")),
        ("GID_test@@@", None),
        ("GID_test@@dev", None),
        ("@@@dev", None),
        ("other@@@dev", None),
        ("GID_test@@@a@@@b", None),
        ("GID_test@@@a/b", None),
        ("GID_test@@@a,b", None),
        ("GID_test@@@a%b", None),
    ],
)
def test_client_ids_have_a_group_and_a_device(client, parts):
    assert split_client_id(client) == parts
    assert (client_id_problem(client) == "") is (parts is not None)


def test_a_client_id_has_at_most_64_characters():
    assert client_id_problem("GID_test@@@" + "d" * 53) == ""
    assert "64" in client_id_problem("GID_test@@@" + "d" * 54)


def test_instance_ids():
    assert instance_id_problem("mqtt-cn-x1") == ""
    assert instance_id_problem("a b")
    assert instance_id_problem("a" * 65)
