"""`[[proxy]]`: which listeners are behind proxies, and where those are; every fault names its section and the fix."""

import json
from ipaddress import ip_network

import pytest

from gateway.settings.load import Problems, load
from schemas.settings import Address, ProxySettings

LISTEN = {"SLUICEWAY_MQTT": "127.0.0.1:1883", "SLUICEWAY_WS": "[::1]:8083"}


def loaded(value, tmp_path, *, by_file=False):
    if not by_file:
        return load({}, LISTEN | {"SLUICEWAY_PROXY": json.dumps(value)})
    path = tmp_path / "gateway.toml"
    path.write_text("".join(f"[[proxy]]\nlistener = {json.dumps(v['listener'])}\nnetworks = {json.dumps(v['networks'])}\n" for v in value))
    return load({}, LISTEN, path)


@pytest.mark.parametrize("by_file", [False, True])
def test_listeners_and_networks(tmp_path, by_file):
    given = [{"listener": "127.0.0.1:1883", "networks": ["10.0.0.0/8", "192.168.1.7"]}, {"listener": "[::1]:8083", "networks": ["fd00::/8"]}]
    assert loaded(given, tmp_path, by_file=by_file).proxy == (
        ProxySettings(listener=Address("127.0.0.1", 1883), networks=(ip_network("10.0.0.0/8"), ip_network("192.168.1.7/32"))),
        ProxySettings(listener=Address("::1", 8083), networks=(ip_network("fd00::/8"),)),
    )


def test_no_listener_is_behind_a_proxy_unless_it_is_said():
    assert load({}, LISTEN).proxy == ()


RIGHT = {"listener": "127.0.0.1:1883", "networks": ["10.0.0.0/8"]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "a list of at most"),
        ([5], "section 1 isn't one"),
        ([RIGHT, {"listener": "127.0.0.1:1883"}], "section 2 isn't one"),
        ([RIGHT | {"more": 1}], "section 1 isn't one"),
        ([RIGHT | {"listener": "127.0.0.1"}], "listener of section 1 must be HOST:PORT"),
        ([RIGHT | {"listener": 5}], "listener of section 1 must be HOST:PORT"),
        ([RIGHT | {"networks": []}], "networks of section 1 must be a list"),
        ([RIGHT | {"networks": "10.0.0.0/8"}], "networks of section 1 must be a list"),
        ([RIGHT | {"networks": [5]}], "networks of section 1 must be a list"),
        ([RIGHT | {"networks": ["10.0.0.0/33"]}], "networks of section 1: '10.0.0.0/33' does not appear to be"),
        ([RIGHT | {"networks": ["10.0.0.1/8"]}], "10.0.0.1/8 has host bits set"),
        ([RIGHT | {"networks": ["proxy.internal"]}], "does not appear to be"),
        ([RIGHT | {"listener": "127.0.0.1:1884"}], "there is no listener 127.0.0.1:1884"),
        ([RIGHT, RIGHT], "listener 127.0.0.1:1883 has two sections"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, value, words):
    with pytest.raises(Problems) as found:
        loaded(value, tmp_path)
    assert words in found.value.problems[0]
    assert found.value.problems[0].startswith("proxy")


def test_what_is_no_json_is_named():
    with pytest.raises(Problems, match="a JSON list"):
        load({}, LISTEN | {"SLUICEWAY_PROXY": "["})
