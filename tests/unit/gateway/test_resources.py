"""The preset `apsaramq`: parent topics and groups must exist, and whoever speaks of others is sent away; in `standard` they are names alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.auth.resources import ResourceRefused
from gateway.auth.shelf import ShelfFull
from gateway.protocol.packets import Publish, Subscribe, SubscriptionRequest
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from tests.support.party import will
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])


@pytest.fixture
def strict(make_bed: Make) -> Testbed:
    bed = make_bed(preset="apsaramq")
    resources = bed.node.registers.resources
    bed.loop.finish(resources.create_group("GID_test", "", 1))
    bed.loop.finish(resources.create_topic("plant", "", "", 1))
    return bed


@VERSIONS
@pytest.mark.parametrize("client", ["plain", "GID_none@@@d", "GID_test@@@", "GID_test@@d", "GID_test@@@a/b", "gid_test@@@d"])
def test_a_client_id_without_an_existing_group_is_refused(strict: Testbed, version: int, client: str) -> None:
    party = strict.dial(version)
    party.connect(client)
    assert party.connack is not None
    assert party.connack.reason_code in (2, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
    assert party.closed


def test_a_deleted_group_admits_nobody_more(strict: Testbed) -> None:
    strict.connect("GID_test@@@d").disconnect()
    assert strict.loop.finish(strict.node.registers.resources.delete_group("GID_test"))
    party = strict.dial()
    party.connect("GID_test@@@d")
    assert party.connack is not None
    assert party.connack.reason_code == ReasonCode.CLIENT_IDENTIFIER_NOT_VALID


@VERSIONS
def test_a_publish_under_no_parent_topic_closes_the_connection(strict: Testbed, version: int) -> None:
    party = strict.connect("GID_test@@@d", version)
    party.exchange("plant/1/state", b"x")
    party.publish("other/1", b"x", 1)
    strict.settle()
    assert party.closed
    assert not [ack for ack in party.inbox if not isinstance(ack, Publish) and getattr(ack, "packet_id", 0) == 2]
    assert [record.topic for record in strict.published()] == ["plant/1/state"]


@VERSIONS
@pytest.mark.parametrize("wanted", ["other/#", "#", "+/1", "$share/g/other/1"])
def test_a_subscription_under_no_parent_topic_closes_the_connection(strict: Testbed, version: int, wanted: str) -> None:
    party = strict.connect("GID_test@@@d", version)
    assert party.subscribe("plant/#", "$share/g/plant/1") == (1, 1)
    party.send(Subscribe(packet_id=9, requests=(SubscriptionRequest(filter=wanted, qos=1),)))
    strict.settle()
    assert party.closed


def test_a_topic_that_is_deleted_ends_what_was_allowed_before(strict: Testbed) -> None:
    party = strict.connect("GID_test@@@d")
    party.exchange("plant/1", b"x")
    strict.loop.finish(strict.node.registers.resources.delete_topic("plant"))
    strict.advance(0.1)
    party.publish("plant/1", b"x", 1)
    strict.settle()
    assert party.closed


def test_a_will_under_no_parent_topic_is_refused(strict: Testbed) -> None:
    party = strict.dial()
    party.connect("GID_test@@@d", will=will("other/gone"))
    assert party.connack is not None
    assert party.connack.reason_code == ReasonCode.NOT_AUTHORIZED


@VERSIONS
def test_in_the_standard_preset_nothing_has_to_exist(bed: Testbed, version: int) -> None:
    party = bed.connect("plain", version)
    assert party.subscribe("#") == (1,)
    party.exchange("anything/at/all", b"x")


def test_names_are_created_once_and_topics_without_regard_to_case(bed: Testbed) -> None:
    resources = bed.node.registers.resources
    bed.loop.finish(resources.create_group("GID_test", "me", 5))
    group = resources.group("GID_test")
    assert group is not None
    assert (group.created, group.updated, group.by) == (5, 5, "me")
    with pytest.raises(ResourceRefused, match="GroupId exists already"):
        bed.loop.finish(resources.create_group("GID_test", "", 5))
    bed.loop.finish(resources.create_group("GID_TEST", "", 5))
    bed.loop.finish(resources.create_topic("Plant", "", "", 5))
    with pytest.raises(ResourceRefused, match="exists already as Plant"):
        bed.loop.finish(resources.create_topic("pLANT", "", "", 5))
    bed.loop.finish(resources.delete_topic("Plant"))
    bed.loop.finish(resources.create_topic("plant", "", "", 5))
    assert not bed.loop.finish(resources.delete_topic("Plant"))


@pytest.mark.parametrize(("group", "topic"), [("GID_", "ab"), ("plain", "a/b"), ("", ""), ("GID_ä1234", "tëst")])
def test_bad_names_are_refused_and_change_nothing(bed: Testbed, group: str, topic: str) -> None:
    resources = bed.node.registers.resources
    with pytest.raises(ResourceRefused, match="GroupId must"):
        bed.loop.finish(resources.create_group(group, "", 1))
    with pytest.raises(ResourceRefused, match="Topic must"):
        bed.loop.finish(resources.create_topic(topic, "", "", 1))
    assert not list(resources.groups())
    assert not list(resources.topics())


def test_groups_and_topics_have_limits(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(groups=1, parent_topics=1))
    resources = bed.node.registers.resources
    bed.loop.finish(resources.create_group("GID_one", "", 1))
    bed.loop.finish(resources.create_topic("one", "", "", 1))
    with pytest.raises(ShelfFull):
        bed.loop.finish(resources.create_group("GID_two", "", 1))
    with pytest.raises(ShelfFull):
        bed.loop.finish(resources.create_topic("two", "", "", 1))
    bed.loop.finish(resources.delete_topic("one"))
    bed.loop.finish(resources.create_topic("two", "", "", 1))


def test_resources_are_there_after_a_crash(strict: Testbed) -> None:
    strict.crash()
    strict.connect("GID_test@@@d").exchange("plant/1", b"x")
    with pytest.raises(ResourceRefused):
        strict.loop.finish(strict.node.registers.resources.create_topic("PLANT", "", "", 1))
