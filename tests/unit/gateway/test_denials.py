"""What is denied is in the log, with who and what, on a line of its own; and whoever is denied can't fill the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from gateway.logs import TextFormatter
from gateway.refusals import LINES_A_SECOND, MAX_SHOWN, Refusals
from schemas.identities import AccessRule
from schemas.limits import Limits
from tests.support.party import will
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
DENY = (AccessRule("*", "*", "no/#", "deny"),)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "gateway.refusals"]


@pytest.mark.parametrize("version", [4, 5])
def test_a_denied_publish_and_subscription_say_who_and_what(make_bed: Make, caplog: pytest.LogCaptureFixture, version: int) -> None:
    bed = make_bed(access=DENY)
    party = bed.connect("dev", version)
    party.subscribe("yes", "no/+")
    party.publish("yes", b"canary-body", 1)
    party.publish("no/a", b"canary-body", 1)
    bed.settle()
    assert lines(caplog) == [
        "subscribe-denied client='dev' principal='anonymous' topic='no/+'",
        "publish-denied client='dev' principal='anonymous' topic='no/a'",
    ]


def test_a_will_that_is_not_allowed_any_more(make_bed: Make, caplog: pytest.LogCaptureFixture) -> None:
    bed = make_bed()
    party = bed.connect("dev", will=will("last/dev", b"canary-body"))
    bed.loop.finish(bed.node.registers.policies.put(AccessRule("anonymous", "publish", "last/#", "deny")))
    party.drop()
    bed.settle()
    assert lines(caplog) == ["will-denied client='dev' principal='anonymous' topic='last/dev'"]


def test_a_topic_can_t_end_its_quotes_or_its_line(make_bed: Make, caplog: pytest.LogCaptureFixture) -> None:
    bed = make_bed(access=DENY, limits=Limits(topic_bytes=4096))
    bed.connect("a' principal='b").publish("no/\u2028\u0085' x='", b"", 0)
    bed.connect("long").publish("no/" + "x" * 4_000, b"", 0)
    bed.settle()
    shown = [TextFormatter().format(record) for record in caplog.records if record.name == "gateway.refusals"]
    assert shown[0].endswith("""client="a' principal='b" principal='anonymous' topic="no/\\u2028\\x85' x='\"""")
    assert len(shown[1].partition("topic=")[2]) == MAX_SHOWN + 2


def test_a_flood_is_a_few_lines_and_a_count(make_bed: Make, caplog: pytest.LogCaptureFixture) -> None:
    bed = make_bed(access=DENY)
    party = bed.connect("dev")
    for number in range(LINES_A_SECOND + 7):
        party.publish(f"no/{number}", b"", 0)
    party.subscribe("no/s")
    bed.settle()
    assert len(lines(caplog)) == LINES_A_SECOND + 1, "the other event has lines of its own"
    caplog.clear()
    bed.advance(1)
    party.publish("no/late", b"", 0)
    party.publish("no/later", b"", 0)
    bed.settle()
    assert [line.partition("topic=")[2] for line in lines(caplog)] == ["'no/late' left_out=7", "'no/later'"]
    assert bed.node.counters.refused["publish_not_authorized"] == LINES_A_SECOND + 9


def test_a_steady_stream_has_so_many_lines_each_second(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    now = 0.0
    refusals = Refusals(lambda: now)
    for step in range(400):
        now = step / 100
        refusals.say("event", "number=%d", step)
    assert len(lines(caplog)) == 4 * LINES_A_SECOND
