"""BatchSendMessages: who repeats a call that was refused sends nothing twice, and who reads its answer knows what was sent."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.records import Record
from tests.support.testbed import Testbed
from tests.unit.gateway.openapi.test_endpoint import Site, code


@pytest.fixture
def site(bed: Testbed) -> Site:
    return Site(bed)


def made(site: Site, *messages: dict[str, str], **fields: str) -> Any:
    given = {f"Messages.{number}.{name}": value for number, message in enumerate(messages, 1) for name, value in message.items()}
    return site.make("BatchSendMessages", Version="2019-12-11", **given | fields)


def message(number: int | str, topic: str = "a", **fields: str) -> dict[str, str]:
    return {"Id": str(number), "Topics.1": topic, "Payload": f"payload {number}"} | fields


def responses(site: Site, *messages: dict[str, str]) -> list[dict[str, Any]]:
    response = site.send(made(site, *messages))
    assert response.status_code == 200, response.text
    return response.json()["Responses"]  # type: ignore[no-any-return]


def test_each_message_goes_to_each_of_its_topics(site: Site) -> None:
    first, second = responses(site, message(7), message(8, "b", **{"Topics.2": "c"}))
    sent = site.bed.published()
    assert [(record.topic, record.payload) for record in sent] == [("a", b"payload 7"), ("b", b"payload 8"), ("c", b"payload 8")]
    ids = [record.id.hex().upper() for record in sent]
    assert first == {"Id": 7, "MsgId": ids[0], "ErrorCode": 0, "ErrorMessage": ""}
    assert second == {"Id": 8, "MsgId": ",".join(ids[1:]), "ErrorCode": 0, "ErrorMessage": ""}


WITHOUT_TOPIC = {"Id": "2", "Payload": "x"}
WITHOUT_PAYLOAD = {"Id": "2", "Topics.1": "b"}
SECOND_TOPIC_WRONG = message(2, "b", **{"Topics.2": "c/#"})
ELEVEN_TOPICS = message(2) | {f"Topics.{number}": "b" for number in range(1, 12)}


@pytest.mark.parametrize("wrong", [WITHOUT_TOPIC, WITHOUT_PAYLOAD, SECOND_TOPIC_WRONG, ELEVEN_TOPICS, message(2, "b/#"), message(2, "$SYS/x")])
def test_a_message_that_is_wrong_is_told_by_its_id_and_the_others_are_sent(site: Site, wrong: dict[str, str]) -> None:
    first, second, third = responses(site, message(1), wrong, message(3))
    assert [(answer["Id"], answer["ErrorCode"]) for answer in (first, third)] == [(1, 0), (3, 0)]
    assert (second["Id"], second["MsgId"], second["ErrorCode"]) == (2, "", 400)
    assert second["ErrorMessage"]
    assert [record.payload for record in site.bed.published()] == [b"payload 1", b"payload 3"]


@pytest.mark.parametrize("wrong", [{}, {"Id": ""}, {"Id": "x"}, {"Id": "-1"}, {"Id": str(2**53 + 1)}])
def test_a_message_without_a_number_of_its_own_is_a_fault_of_the_batch_and_nothing_is_sent(site: Site, wrong: dict[str, str]) -> None:
    nameless = {name: value for name, value in message(2).items() if name != "Id"} | wrong
    assert code(site.send(made(site, message(1), nameless)), 400) == "ParameterCheckFailed"
    assert site.bed.published() == []


def test_none_and_more_than_there_may_be_are_refused(site: Site) -> None:
    assert code(site.send(made(site)), 400) == "ParameterCheckFailed"
    assert code(site.send(made(site, *map(message, range(33)))), 400) == "ParameterCheckFailed"
    assert code(site.send(made(site, message(1), **{"Messages.3.Id": "3"})), 400) == "ParameterCheckFailed"
    assert site.bed.published() == []
    assert len(responses(site, *map(message, range(32)))) == 32


def test_what_was_sent_before_the_log_failed_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    append = site.bed.log.append

    def refuse(topic: str, key: str, record: Record, sink: Any) -> None:
        site.bed.log.refusing = record.topic == "c"
        append(topic, key, record, sink)

    monkeypatch.setattr(site.bed.log, "append", refuse)
    [answer] = responses(site, message(1, "b", **{"Topics.2": "c"}))
    assert (answer["MsgId"], answer["ErrorCode"]) == (site.bed.published()[0].id.hex().upper(), 500)


def test_another_instance_is_refused(site: Site) -> None:
    assert code(site.send(made(site, message(1), InstanceId="other")), 400) == "InstancePermissionCheckFailed"
    assert site.bed.published() == []
