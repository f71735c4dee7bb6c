"""`[connections.NAME]`: what is taken, what is refused and how, and that no secret is ever shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from gateway.settings.load import Problems, load
from schemas.connections import ConnectionSettings
from schemas.settings import Settings

CANARY = "canary-7f3a"
KAFKA = '[connections.main]\nkind = "kafka"\naddress = "a:9092,b:9092"\n'


def loaded(tmp_path: Path, text: str, environment: Mapping[str, str] | None = None) -> Settings:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    return load({}, environment or {}, file)


def problems(tmp_path: Path, text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(Problems) as caught:
        loaded(tmp_path, text, environment)
    return caught.value.problems


def test_connections_of_both_kinds(tmp_path: Path) -> None:
    text = KAFKA + 'allow_outflow = ["orders-*"]\ntls = true\nca = "/ca.pem"\nmechanism = "PLAIN"\nuser = "u"\npassword = "p"\n'
    text += '[connections.rocket-1]\nkind = "rocketmq"\naddress = ["n:9876"]\nallow_inflow = "commands"\nnamespace = "ns"\n'
    main, rocket = loaded(tmp_path, text).connections
    assert (main.name, main.kind, main.address, main.allow_outflow) == ("main", "kafka", ("a:9092", "b:9092"), ("orders-*",))
    assert (main.tls, main.ca, main.mechanism, main.user, main.password.reveal()) == (True, Path("/ca.pem"), "PLAIN", "u", "p")
    assert (rocket.name, rocket.kind, rocket.allow_inflow, rocket.namespace) == ("rocket-1", "rocketmq", ("commands",), "ns")
    assert rocket.allow_outflow == ()


def test_every_option_is_a_field_and_every_field_an_option() -> None:
    from gateway.settings.connections import OPTIONS

    assert set(OPTIONS) == set(ConnectionSettings.__struct_fields__) - {"name"} | {"password_file"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('pasword = "x"', "connections.main.pasword ("),
        ('kind = "pulsar"', "connections.main.kind ("),
        ('address = "a"', "connections.main.address ("),
        ('allow_outflow = ["a b"]', "connections.main.allow_outflow ("),
        ("tls = 1.5", "connections.main.tls ("),
        ('mechanism = "GSSAPI"', "connections.main.mechanism ("),
        ('compression = "br"', "connections.main.compression ("),
        ('certificate = "/c"\ntls = true', "connections.main.certificate: certificate and key go together"),
        ('ca = "/c"', "connections.main.tls: "),
        ('namespace = "a"', "connections.main.namespace: Kafka has none"),
        ('mechanism = "PLAIN"', "connections.main.user: "),
        ('mechanism = "OAUTHBEARER"', "connections.main.token_file: "),
        ('password = "x"', "connections.main.mechanism: "),
        ('password_file = "/does/not/exist"', "connections.main.password_file: /does/not/exist can't be read"),
    ],
)
def test_what_is_refused_names_the_key(tmp_path: Path, line: str, words: str) -> None:
    text = KAFKA if not line.startswith(("kind", "address")) else "\n".join(each for each in KAFKA.split("\n") if not each.startswith(line[:4]))
    found = problems(tmp_path, text + line + "\n")
    assert any(problem.startswith(words) for problem in found), found


def test_an_unknown_key_comes_with_the_nearest(tmp_path: Path) -> None:
    assert problems(tmp_path, KAFKA + 'pasword = "x"\n')[0].endswith("unknown key; did you mean password?")


@pytest.mark.parametrize("text", ["connections = 3\n", "[connections]\nmain = 3\n", '[connections."a b"]\nkind = "kafka"\n'])
def test_what_is_no_section(tmp_path: Path, text: str) -> None:
    assert "section" in problems(tmp_path, text)[0]


def test_what_is_missing(tmp_path: Path) -> None:
    assert problems(tmp_path, "[connections.main]\n")[:2] == [
        "connections.main.kind: it is missing; say kafka or rocketmq",
        "connections.main.address: it is missing; give HOST:PORT of Kafka's bootstrap servers or RocketMQ's name servers",
    ]


def test_the_environment_wins_and_may_hold_the_secret(tmp_path: Path) -> None:
    environment = {"SLUICEWAY_CONNECTIONS_MAIN_PASSWORD": "e", "SLUICEWAY_CONNECTIONS_MAIN_ADDRESS": "c:1"}
    (main,) = loaded(tmp_path, KAFKA + 'mechanism = "PLAIN"\nuser = "u"\npassword = "p"\n', environment).connections
    assert (main.password.reveal(), main.address) == ("e", ("c:1",))
    (made,) = load({}, {"SLUICEWAY_CONNECTIONS_MY_ONE_KIND": "kafka", "SLUICEWAY_CONNECTIONS_MY_ONE_ADDRESS": "c:1"}).connections
    assert made.name == "my_one"
    assert "unknown variable" in problems(tmp_path, KAFKA, {"SLUICEWAY_CONNECTIONS_MAIN_PASWORD": CANARY})[0]


def test_a_password_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(CANARY + "\n")
    text = KAFKA + f'mechanism = "PLAIN"\nuser = "u"\npassword_file = "{tmp_path / "secret"}"\n'
    assert loaded(tmp_path, text).connections[0].password.reveal() == CANARY
    assert "give one of them" in problems(tmp_path, text + 'password = "x"\n')[0]
    (tmp_path / "secret").write_bytes(b"\xff")
    assert "must hold the password alone" in problems(tmp_path, text)[0]


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    text = KAFKA + f'mechanism = "PLAIN"\nuser = "u"\npassword = "{CANARY}"\n'
    settings = loaded(tmp_path, text)
    assert CANARY not in repr(settings) + str(settings) + str(settings.connections) + f"{settings.connections[0].password}"
    with pytest.raises(TypeError):
        msgspec.json.encode(settings.connections[0])
    for more in ("other = 1\n", 'namespace = "x"\n', "tls = 7\n"):
        assert CANARY not in "".join(problems(tmp_path, text + more))
    wrong = KAFKA + f'password = ["{CANARY}"]\n'
    assert CANARY not in "".join(problems(tmp_path, wrong))


def test_too_many(tmp_path: Path) -> None:
    text = "".join(f'[connections.c{number}]\nkind = "kafka"\naddress = "a:1"\n' for number in range(33))
    assert "at most 32" in problems(tmp_path, text)[0]
