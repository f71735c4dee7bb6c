"""Any bytes are commands, the wish for more, or a RemotingError; and the vectors are RocketMQ's form, written by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.rocketmq.errors import RemotingError
from bridges.rocketmq.frames import FRAME_LIMIT, ONEWAY, RESPONSE, Command, FrameReader, decode_frame, encode_frame

HEADER = (
    b'{"code":17,"extFields":{"a":"b","none":null},"flag":1,'
    b'"language":"JAVA","opaque":258,"remark":"no","serializeTypeCurrentRPC":"JSON","version":407}'
)
ANSWER = bytes.fromhex("00000099 00000092") + HEADER + b"\x00\xff!"
"""Length 153, header form 0 and length 146, header, three bytes of body."""


def test_an_answer_as_a_broker_writes_it() -> None:
    assert len(HEADER) == 0x92
    assert FrameReader().feed(ANSWER) == [Command(17, 258, RESPONSE, "no", {"a": "b"}, b"\x00\xff!")]


def test_a_request_as_a_broker_reads_it() -> None:
    frame = encode_frame(Command(105, 9, 0, "", {"topic": "T"}, b"body"))
    header = frame[8:-4]
    assert frame[:8] == (4 + len(header) + 4).to_bytes(4, "big") + b"\x00" + len(header).to_bytes(3, "big")
    assert json.loads(header) == {"code": 105, "opaque": 9, "language": "PYTHON", "version": 407, "flag": 0, "extFields": {"topic": "T"}}
    assert frame[-4:] == b"body"


def test_a_command_says_what_it_is() -> None:
    assert Command(0, 1, RESPONSE).is_response
    assert not Command(0, 1, RESPONSE).is_oneway
    assert Command(0, 1, ONEWAY).is_oneway
    assert not Command(0, 1, ONEWAY).is_response


@pytest.mark.parametrize("end", range(len(ANSWER)))
def test_every_truncation_waits_for_more(end: int) -> None:
    reader = FrameReader()
    assert reader.feed(ANSWER[:end]) == []
    assert reader.feed(ANSWER[end:]) == FrameReader().feed(ANSWER)


@pytest.mark.parametrize("end", range(len(ANSWER) - 4 - 3))
def test_every_truncation_within_a_frame_is_an_error(end: int) -> None:
    with pytest.raises(RemotingError):
        decode_frame(ANSWER[4 : 4 + end])


def test_frames_come_out_however_they_arrive() -> None:
    commands = [Command(n, n, RESPONSE, "", {}, b"x" * n) for n in range(1, 30)]
    stream = b"".join(map(encode_frame, commands))
    for step in (1, 7, 100, len(stream)):
        reader = FrameReader()
        assert [command for at in range(0, len(stream), step) for command in reader.feed(stream[at : at + step])] == commands


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("00000003000000", "4 to"),
        ("ffffffff", "4 to"),
        (f"{FRAME_LIMIT + 1:08x}", "4 to"),
        ("00000006 01000002 7b7d", "form 1"),
        ("00000006 00000003 7b7d", "ends at"),
        ("00000006 00000002 7b7d", "can't be read"),
        ("00000004 00000000", "can't be read"),
        ("00000006 00000002 fffe", "can't be read"),
        ("00014005 00014001 7b2261223a" + "5b" * 0x13FFC, "can't be read"),
    ],
)
def test_what_is_no_frame_is_an_error_that_says_why(frame: str, words: str) -> None:
    with pytest.raises(RemotingError, match=words):
        FrameReader().feed(bytes.fromhex(frame))


def test_a_frame_over_the_limit_is_not_sent() -> None:
    with pytest.raises(RemotingError, match="limit") as raised:
        encode_frame(Command(1, 1, body=b"x" * FRAME_LIMIT))
    assert not raised.value.retryable


@given(st.binary(max_size=300))
def test_any_bytes_in_a_stream(data: bytes) -> None:
    try:
        FrameReader().feed(data)
    except RemotingError:
        return


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_in_a_frame(data: bytes, plausible: bool) -> None:
    frame = len(data).to_bytes(4, "big") + data if plausible else data
    try:
        assert isinstance(decode_frame(frame), Command)
    except RemotingError:
        return


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 3), texts, st.dictionaries(texts, texts), st.binary())
def test_what_is_written_is_read(code: int, opaque: int, flag: int, remark: str, fields: dict[str, str], body: bytes) -> None:
    command = Command(code, opaque, flag, remark, fields, body)
    assert FrameReader().feed(encode_frame(command)) == [command]
