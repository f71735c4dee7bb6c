"""The checker finds each kind of fault, and nothing in a run without one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.support.checker import Verdict, check
from tests.support.ledger import Ledger, read_stamp, stamp

KINDS = ("lost", "undelivered", "duplicated", "reordered", "phantom", "corrupted")


def ledger_of(count: int = 5, *, qos: int = 1, subscribers: Iterable[str] = ("a", "b")) -> Ledger:
    """``count`` acknowledged publishes at 0, 1, 2 ... seconds; nobody has received anything."""
    ledger = Ledger()
    for name in subscribers:
        ledger.subscribe(name, lambda sent: True, qos)
    for seq in range(count):
        ledger.send("p", seq, "t", qos, stamp("p", seq), float(seq))
        ledger.ack("p", seq, seq + 0.5)
    return ledger


def receive(ledger: Ledger, subscriber: str, *sequence: int, start: float = 10.0, step: float = 0.1, topic: str = "t", qos: int = 1) -> None:
    for index, seq in enumerate(sequence):
        ledger.receive(subscriber, topic, qos, stamp("p", seq), start + index * step)


def found(verdict: Verdict) -> list[str]:
    return [kind for kind in KINDS if getattr(verdict, kind)]


def test_a_run_without_fault_passes() -> None:
    ledger = ledger_of()
    receive(ledger, "a", 0, 1, 2, 3, 4)
    receive(ledger, "b", 0, 1, 2, 3, 4)
    assert check(ledger).ok
    assert check(ledger).repeats == 0


def test_acknowledged_and_nowhere_is_lost_and_missing_at_one_is_undelivered() -> None:
    ledger = ledger_of()
    receive(ledger, "a", 0, 1, 3, 4)
    receive(ledger, "b", 0, 1, 4)
    verdict = check(ledger)
    assert verdict.lost == [("all", "p", 2, "acknowledged at 2.500 on t")]
    assert [fault[:3] for fault in verdict.undelivered] == [("b", "p", 3)]
    assert found(verdict) == ["lost", "undelivered"]


def test_what_was_never_acknowledged_may_be_absent_or_present() -> None:
    ledger = ledger_of()
    ledger.send("p", 5, "t", 1, stamp("p", 5), 5.0)
    ledger.send("p", 6, "t", 1, stamp("p", 6), 6.0)
    receive(ledger, "a", 0, 1, 2, 3, 4, 5)
    receive(ledger, "b", 0, 1, 2, 3, 4)
    assert check(ledger).ok


def test_only_who_wants_a_publish_must_have_it_and_may_have_it() -> None:
    ledger = ledger_of(subscribers=("a",))
    ledger.subscribe("none", lambda sent: False, 1)
    receive(ledger, "a", 0, 1, 2, 3, 4)
    assert check(ledger).ok
    receive(ledger, "none", 0)
    assert found(check(ledger)) == ["phantom"]


def test_first_copies_out_of_order_are_reordered() -> None:
    ledger = ledger_of(subscribers=("a",))
    receive(ledger, "a", 0, 2, 1, 3, 4)
    assert [fault[:3] for fault in check(ledger).reordered] == [("a", "p", 1)]


def test_order_is_per_publisher_and_topic() -> None:
    ledger = ledger_of(2, subscribers=("a",))
    ledger.send("p", 2, "other", 1, stamp("p", 2), 2.0)
    receive(ledger, "a", 2, topic="other")
    receive(ledger, "a", 0, 1)
    assert check(ledger).ok


def test_a_repeat_without_disruption_is_duplicated() -> None:
    ledger = ledger_of(subscribers=("a",))
    receive(ledger, "a", 0, 1, 1, 2, 3, 4)
    assert found(check(ledger)) == ["duplicated"]


def test_a_qos_1_repeat_of_the_last_second_before_a_kill_is_allowed() -> None:
    ledger = ledger_of(subscribers=("a",))
    receive(ledger, "a", 0, 1, 2, start=10.0, step=0.2)
    ledger.disrupt(10.5)
    receive(ledger, "a", 1, 2, 3, 4, start=11.0)
    verdict = check(ledger)
    assert verdict.ok
    assert verdict.repeats == 2
    assert verdict.oldest_repeat == pytest.approx(0.3)


def test_a_repeat_of_what_came_more_than_a_second_before_the_kill_is_duplicated() -> None:
    ledger = ledger_of(subscribers=("a",))
    receive(ledger, "a", 0, 1, 2, 3, 4, start=10.0, step=0.01)
    ledger.disrupt(12.0)
    receive(ledger, "a", 4, start=13.0)
    assert [fault[:3] for fault in check(ledger).duplicated] == [("a", "p", 4)]


def test_a_disruption_excuses_no_repeat_after_something_new() -> None:
    ledger = ledger_of(subscribers=("a",))
    receive(ledger, "a", 0, 1, 2, start=10.0, step=0.01)
    ledger.disrupt(10.1)
    receive(ledger, "a", 2, 3, 2, 4, start=11.0)
    assert [fault[:3] for fault in check(ledger).duplicated] == [("a", "p", 2)]


def test_repeats_keep_their_order_too() -> None:
    ledger = ledger_of(subscribers=("a",))
    receive(ledger, "a", 0, 1, 2, start=10.0, step=0.01)
    ledger.disrupt(10.1)
    receive(ledger, "a", 2, 1, 3, 4, start=11.0)
    assert [fault[:3] for fault in check(ledger).reordered] == [("a", "p", 1)]


def test_repeats_after_two_kills_are_two_runs() -> None:
    ledger = ledger_of(subscribers=("a",))
    receive(ledger, "a", 0, 1, 2, start=10.0, step=0.01)
    ledger.disrupt(10.1)
    receive(ledger, "a", 1, 2, start=10.2)
    ledger.disrupt(10.5)
    receive(ledger, "a", 1, 2, 3, 4, start=10.6)
    assert check(ledger).ok


def test_qos_2_allows_no_second_copy_even_after_a_kill() -> None:
    ledger = ledger_of(qos=2, subscribers=("a",))
    receive(ledger, "a", 0, 1, 2, qos=2)
    ledger.disrupt(10.25)
    receive(ledger, "a", 2, 3, 4, start=10.3, qos=2)
    assert [fault[:3] for fault in check(ledger).duplicated] == [("a", "p", 2)]


def test_a_publish_that_its_client_sent_again_may_come_again_under_qos_1_alone() -> None:
    for qos, allowed in ((1, True), (2, False)):
        ledger = ledger_of(qos=qos, subscribers=("a",))
        ledger.resend("p", 4)
        receive(ledger, "a", 0, 1, 2, 3, 4, 4)
        assert check(ledger).ok is allowed


def test_bytes_nobody_sent_are_phantom_and_changed_bytes_are_corrupted() -> None:
    ledger = ledger_of(subscribers=("a",))
    receive(ledger, "a", 0, 1, 2, 3, 9)
    ledger.receive("a", "t", 1, b"hello", 11.0)
    ledger.receive("a", "t", 1, stamp("p", 4)[:-1] + b"?", 11.0)
    verdict = check(ledger)
    assert [fault[1:3] for fault in verdict.phantom] == [("?", 1), ("p", 9)]
    assert [fault[1:3] for fault in verdict.corrupted] == [("p", 4)]
    assert "corrupted 1: a <- p/4" in str(verdict)


def test_a_receipt_on_another_topic_is_phantom() -> None:
    ledger = ledger_of(1, subscribers=("a",))
    receive(ledger, "a", 0, topic="elsewhere")
    assert found(check(ledger)) == ["lost", "phantom"]


@pytest.mark.parametrize("size", [0, 8, 64, 5000])
def test_a_stamp_names_its_publish_at_any_size(size: int) -> None:
    payload = stamp("client-1", 12345, size)
    assert read_stamp(payload) == ("client-1", 12345)
    assert len(payload) == max(size, len("client-1:12345:"))


def test_what_is_no_stamp_is_none() -> None:
    assert [read_stamp(payload) for payload in (b"", b"::", b"a:b:", b"plain")] == [None] * 4


def test_the_same_sequence_number_twice_is_a_fault_of_the_test() -> None:
    with pytest.raises(AssertionError, match="used 0 twice"):
        ledger_of(1).send("p", 0, "t", 1, b"", 0.0)


def test_every_kind_of_fault_makes_the_verdict_fail() -> None:
    for kind in KINDS:
        verdict = Verdict()
        getattr(verdict, kind).append(("a", "p", 0, ""))
        assert not verdict.ok


def test_what_only_the_second_of_two_disruptions_brings_again_is_a_run_of_its_own() -> None:
    """A takeover repeats what is unacknowledged; a kill right after it also what was acknowledged within the last second."""
    ledger = ledger_of(subscribers="a")
    receive(ledger, "a", 0, 1, 2, 3, 4)
    ledger.disrupt(10.45, "a")
    receive(ledger, "a", 3, 4, start=10.46, step=0.01)
    ledger.disrupt(10.5, "a")
    receive(ledger, "a", 1, 2, 3, 4, start=10.6)
    assert check(ledger).ok
    receive(ledger, "a", 2, start=11.0)
    assert not check(ledger).ok
