"""`[[tls.certificates]]`: certificates by server name; every fault names its section and the fix."""

import json
from pathlib import Path

import pytest

from gateway.settings.load import Problems, load
from schemas.settings import NamedCertificate

LISTEN = {"SLUICEWAY_MQTTS": "127.0.0.1:8883", "SLUICEWAY_TLS_CERTIFICATE": "/d.pem", "SLUICEWAY_TLS_KEY": "/d.key"}
PAIR = {"certificate": "/one.pem", "key": "/one.key"}


def loaded(value):
    return load({}, LISTEN | {"SLUICEWAY_TLS_CERTIFICATES": json.dumps(value)}).tls.certificates


def test_sections_of_a_file_and_the_environment(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text('[tls]\ncertificate = "/d.pem"\n[[tls.certificates]]\ncertificate = "/one.pem"\nkey = "/one.key"\n')
    expected = (NamedCertificate(certificate=Path("/one.pem"), key=Path("/one.key")),)
    assert load({}, LISTEN, path).tls.certificates == expected == loaded([PAIR])
    assert load({}, LISTEN).tls.certificates == ()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "a list of at most 256"),
        ([PAIR] * 257, "a list of at most 256"),
        ([5], "section 1 isn't one"),
        ([PAIR, {"certificate": "/x"}], "section 2 isn't one"),
        ([PAIR | {"names": ["a"]}], "section 1 isn't one"),
        ([PAIR | {"key": 5}], "key of section 1 must be a path"),
        ([PAIR, PAIR | {"certificate": ""}], "certificate of section 2 must be a path"),
    ],
)
def test_what_is_wrong_is_named(value, words):
    with pytest.raises(Problems) as found:
        loaded(value)
    assert words in found.value.problems[0]
    assert found.value.problems[0].startswith("tls.certificates")


def test_what_is_no_json_is_named():
    with pytest.raises(Problems, match="a JSON list"):
        load({}, LISTEN | {"SLUICEWAY_TLS_CERTIFICATES": "["})
