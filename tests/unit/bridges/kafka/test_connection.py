"""What a client is given, and how failures are worded."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError, UnknownTopicOrPartitionError

from bridges.kafka.backend import KafkaBackend
from bridges.kafka.connection import TOPIC_NAME, Connection, words
from schemas.connections import ConnectionSettings, Secret
from schemas.errors import BackendError
from tests.support.certificates import Authority


def connection(**options: object) -> Connection:
    return Connection(ConnectionSettings(name="orders", kind="kafka", address=("a:1", "b:2"), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tls", "mechanism", "protocol"),
    [(False, None, "PLAINTEXT"), (True, None, "SSL"), (False, "PLAIN", "SASL_PLAINTEXT"), (True, "SCRAM-SHA-512", "SASL_SSL")],
)
async def test_the_security_protocol_follows_from_the_settings(tls: bool, mechanism: str | None, protocol: str) -> None:
    options = connection(tls=tls, mechanism=mechanism, user="u", password=Secret("p")).options()
    assert options["security_protocol"] == protocol
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert ("ssl_context" in options) == tls
    assert options.get("sasl_mechanism") == mechanism
    assert options.get("sasl_plain_password") == ("p" if mechanism else None)


async def test_certificates_are_verified_and_ours_are_shown(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("client", client=True)
    context = connection(tls=True, ca=authority.path, certificate=pair.certificate, key=pair.key).options()["ssl_context"]
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("field", ["ca", "certificate"])
async def test_certificates_that_are_missing_are_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(BackendError, match="connection orders: ca, certificate or key"):
        connection(tls=True, **{field: tmp_path / "missing.pem"}).options()


async def test_a_token_is_read_anew_for_each_connect(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n", "utf-8")
    options = connection(mechanism="OAUTHBEARER", token_file=file).options()
    assert "sasl_plain_password" not in options
    assert await options["sasl_oauth_token_provider"].token() == "first"
    file.write_text("second", "utf-8")
    assert await options["sasl_oauth_token_provider"].token() == "second"


async def test_a_token_without_a_file_is_refused() -> None:
    with pytest.raises(BackendError, match="token_file") as raised:
        connection(mechanism="OAUTHBEARER").options()
    assert not raised.value.retryable


async def test_trouble_is_shown_until_something_works() -> None:
    tried = connection()
    for error in (OSError("gone"), UnknownTopicOrPartitionError("topic"), TimeoutError()):
        with pytest.raises(BackendError, match="connection orders: send: ") as raised:
            async with tried.attempt("send"):
                raise error
        assert raised.value.retryable
        assert tried.trouble.startswith("send: ")
    async with tried.attempt("send"):
        pass
    assert tried.trouble == ""


def test_errors_are_worded_once() -> None:
    assert words(OSError("no route")) == "OSError: no route"
    assert words(TimeoutError()) == "TimeoutError"
    assert words(KafkaConnectionError("closed")).count("Connection") == 1


async def test_the_client_library_is_silent() -> None:
    connection()
    assert not logging.getLogger("aiokafka.client").isEnabledFor(logging.ERROR)


def test_the_hint_is_a_command_for_a_shell() -> None:
    backend = KafkaBackend(ConnectionSettings(name="orders", kind="kafka", address=("a:1", "b:2")))
    assert backend.creation_hint("t; rm x") == "kafka-topics.sh --bootstrap-server a:1,b:2 --create --topic 't; rm x' --partitions 8"


@pytest.mark.parametrize(
    ("name", "good"),
    [("a.B_c-9", True), ("x" * 249, True), ("", False), ("x" * 250, False), ("a/b", False), ("a b", False), ("ä", False), ("a\n", False)],
)
def test_names_of_topics(name: str, good: bool) -> None:
    assert bool(TOPIC_NAME.fullmatch(name)) == good
