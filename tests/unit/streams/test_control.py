"""Any bytes give a typed value or a sentence that names the field and the fix, never an exception."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.control import MAX_PAYLOAD, EnableOrder, GetOffline, TokenBucket, parse_enable_order, parse_get_offline, take


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"maxPushNum": 30, "pushOrder": "DESC"}', GetOffline(30, "DESC")),
        (b'{"pushOrder":"ASC","maxPushNum":1}', GetOffline(1, "ASC")),
        (b' {"maxPushNum": 500, "pushOrder": "ASC", "more": [1]} ', GetOffline(30, "ASC")),
    ],
)
def test_a_pull_is_read(payload: bytes, expected: GetOffline) -> None:
    assert parse_get_offline(payload) == expected


@pytest.mark.parametrize("count", ["0", "-1", "1.5", '"30"', "true", "null", "[]", "1e400"])
def test_a_bad_count_names_its_field(count: str) -> None:
    error = parse_get_offline(f'{{"maxPushNum": {count}, "pushOrder": "ASC"}}'.encode())
    assert isinstance(error, str)
    assert "maxPushNum must be" in error or count == "1e400"


@pytest.mark.parametrize("order", ['"asc"', '"UP"', "1", "null", "{}"])
def test_a_bad_order_names_its_field(order: str) -> None:
    error = parse_get_offline(f'{{"maxPushNum": 3, "pushOrder": {order}}}'.encode())
    assert isinstance(error, str)
    assert "pushOrder must be" in error


def test_a_missing_field_is_named() -> None:
    assert "maxPushNum" in str(parse_get_offline(b'{"pushOrder": "ASC"}'))
    assert "pushOrder" in str(parse_get_offline(b'{"maxPushNum": 3}'))
    assert "order" in str(parse_enable_order(b"{}"))


@pytest.mark.parametrize("payload", [b'{"order":"true"}', b'{"order" : "true", "x": 1}'])
def test_order_is_asked_for_by_a_string(payload: bytes) -> None:
    assert parse_enable_order(payload) == EnableOrder()


@pytest.mark.parametrize("payload", [b'{"order":true}', b'{"order":"false"}', b'{"order":"True"}', b'{"order":1}', b'{"order":["true"]}'])
def test_any_other_order_is_refused(payload: bytes) -> None:
    assert parse_enable_order(payload) == 'order must be the string "true"'


BAD = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"true"',
    b"\xff\xfe",
    b'{"order":"\xff"}',
    b'{"\xc0\x80":1}',
    b"[" * MAX_PAYLOAD,
    b'{"a":' * 200,
    b"{} {}",
    b"\xef\xbb\xbf{}",
    b'{"order":"\\ud800"}',
    b"9" * 1000,
    b" " * (MAX_PAYLOAD + 1),
    b'{"a": 1e99999}',
    b"{1:2}",
]


@pytest.mark.parametrize("payload", BAD)
def test_bad_json_is_an_answer(payload: bytes) -> None:
    for parse in (parse_get_offline, parse_enable_order):
        assert isinstance(parse(payload), str)


def test_a_payload_over_the_limit_is_not_read() -> None:
    fits = b'{"order":"true"}'
    assert parse_enable_order(fits.ljust(MAX_PAYLOAD)) == EnableOrder()
    assert str(MAX_PAYLOAD) in str(parse_enable_order(fits.ljust(MAX_PAYLOAD + 1)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.binary(max_size=64)
    | st.dictionaries(st.sampled_from(["maxPushNum", "pushOrder", "order", "x"]), json_values).map(lambda v: json.dumps(v).encode())
)
def test_nothing_but_an_answer_comes_out(payload: bytes) -> None:
    assert isinstance(parse_get_offline(payload), GetOffline | str)
    assert isinstance(parse_enable_order(payload), EnableOrder | str)


def run(times: list[float]) -> list[bool]:
    bucket, taken = TokenBucket(), []
    for now in times:
        bucket, is_taken = take(bucket, now)
        taken.append(is_taken)
    return taken


def test_five_pulls_at_once_and_five_more_a_second_later() -> None:
    assert run([100.0] * 7) == [True] * 5 + [False] * 2
    assert run([100.0] * 6 + [101.0] * 6) == [True] * 5 + [False] + [True] * 5 + [False]
    assert run([100.0] * 5 + [100.1, 100.21, 100.22]) == [True] * 5 + [False, True, False]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    assert run([100.0] * 5 + [50.0]) == [True] * 5 + [False]


@given(st.lists(st.floats(0, 10), max_size=80).map(sorted))
def test_never_more_than_the_burst_and_the_rate(times: list[float]) -> None:
    taken = [now for now, is_taken in zip(times, run(times), strict=True) if is_taken]
    for index, first in enumerate(taken):
        within = [now for now in taken[index:] if now <= first + 1.0]
        assert len(within) <= 10
    assert len(taken) <= 5 + 10 * 5
