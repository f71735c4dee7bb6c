"""Any bytes are messages or a RemotingError; and the vectors are RocketMQ's form, written by hand."""

from __future__ import annotations

import struct
import zlib

import lz4.frame  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bridges.rocketmq import compression
from bridges.rocketmq.compression import unpack
from bridges.rocketmq.errors import RemotingError
from bridges.rocketmq.messages import (
    StoredMessage,
    decode_batch,
    decode_properties,
    decode_stored,
    encode_batched,
    encode_properties,
)

STORED = bytes.fromhex(
    "00000069"  # size: 105
    "daa320a7"  # magic
    "12345678"  # checksum of the body
    "00000003"  # queue
    "00000000"  # flag
    "0000000000000102"  # offset in the queue
    "0000000000004000"  # place in the broker's log
    "00000000"  # system flag
    "0000018bcfe56800"  # born
    "7f000001 00001234"  # born at
    "0000018bcfe56801"  # stored
    "7f000001 00002a9f"  # stored at
    "00000000"  # consumed again
    "0000000000000000"  # prepared transaction
    "00000002 6869"  # body
    "01 54"  # topic
    "000b 54414753 01 74 02 6b 01 76 02"  # properties
)
MESSAGE = StoredMessage("T", 3, 0x102, b"hi", (("TAGS", "t"), ("k", "v")), 0x18BCFE56800, 0x18BCFE56801, 105)


def stored(body: bytes = b"hi", flag: int = 0, *, long_topic: bool = False, properties: bytes = b"") -> bytes:
    """A stored message with hosts as the flag says."""
    born = bytes(20 if flag & 0x10 else 8)
    store = bytes(20 if flag & 0x20 else 8)
    rest = struct.pack(">IIiiqqiq", 0xDAA320AB if long_topic else 0xDAA320A7, 0, 3, 0, 258, 0, flag, 1) + born + struct.pack(">q", 2) + store
    rest += bytes(12) + struct.pack(">i", len(body)) + body + (b"\x00\x01T" if long_topic else b"\x01T")
    rest += struct.pack(">h", len(properties)) + properties
    return struct.pack(">I", len(rest) + 4) + rest


def test_a_stored_message_as_a_broker_writes_it() -> None:
    assert decode_stored(STORED) == [MESSAGE]
    assert decode_stored(STORED + STORED) == [MESSAGE, MESSAGE]
    assert decode_stored(b"") == []


@pytest.mark.parametrize("end", range(1, len(STORED)))
def test_every_truncation_of_a_stored_message_is_an_error(end: int) -> None:
    with pytest.raises(RemotingError):
        decode_stored(STORED[:end])
    with pytest.raises(RemotingError):
        decode_stored(STORED + STORED[:end])


@pytest.mark.parametrize("end", range(4, len(STORED)))
def test_a_stored_message_that_says_a_smaller_size_is_an_error(end: int) -> None:
    with pytest.raises(RemotingError):
        decode_stored(end.to_bytes(4, "big") + STORED[4:end])


@pytest.mark.parametrize("flag", [0x00, 0x10, 0x20, 0x30])
@pytest.mark.parametrize("long_topic", [False, True])
def test_hosts_of_either_kind_and_both_forms_of_the_topic(flag: int, long_topic: bool) -> None:
    message = stored(flag=flag, long_topic=long_topic, properties=b"a\x01b\x02")
    assert decode_stored(message) == [StoredMessage("T", 3, 258, b"hi", (("a", "b"),), 1, 2, len(message))]


def test_an_unknown_form_is_an_error() -> None:
    with pytest.raises(RemotingError, match="0xdaa320ac"):
        decode_stored(STORED[:4] + bytes.fromhex("daa320ac") + STORED[8:])


@pytest.mark.parametrize(
    ("flag", "pack"),
    [
        (0x001, zlib.compress),
        (0x301, zlib.compress),
        (0x101, lz4.frame.compress),
        (0x201, zstandard.ZstdCompressor().compress),
    ],
)
def test_compressed_bodies_come_out_as_they_were(flag: int, pack: object) -> None:
    assert callable(pack)
    body = b"a body that repeats itself " * 100
    (message,) = decode_stored(stored(pack(body), flag))
    assert (message.body, message.size) == (body, len(stored(body)))
    with pytest.raises(RemotingError, match="unpacked"):
        decode_stored(stored(b"no such thing at all", flag))


@pytest.mark.parametrize(("flag", "pack"), [(0x301, zlib.compress), (0x101, lz4.frame.compress)])
def test_a_compressed_body_that_ends_too_early_is_an_error(flag: int, pack: object) -> None:
    assert callable(pack)
    packed = pack(b"a body that repeats itself " * 100)
    with pytest.raises(RemotingError):
        unpack(packed[:-5], flag)


@pytest.mark.parametrize(
    ("flag", "pack"),
    [(0x301, zlib.compress), (0x101, lz4.frame.compress), (0x201, zstandard.ZstdCompressor().compress)],
)
def test_a_body_that_unpacks_to_too_much_is_an_error(flag: int, pack: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(pack)
    monkeypatch.setattr(compression, "BODY_LIMIT", 1000)
    assert unpack(pack(bytes(1000)), flag) == bytes(1000)
    with pytest.raises(RemotingError, match="more than 1000"):
        unpack(pack(bytes(1001)), flag)


@given(st.binary(max_size=200), st.sampled_from([0x101, 0x201, 0x301, 0x701]))
def test_any_bytes_as_a_compressed_body(data: bytes, flag: int) -> None:
    try:
        unpack(data, flag)
    except RemotingError:
        return


def test_a_batch_that_a_broker_keeps_as_one_message_comes_out_as_its_messages() -> None:
    body = encode_batched(b"one", encode_properties([("n", "1")])) + encode_batched(b"two", b"")
    assert decode_stored(stored(body, 0xC0)) == [
        StoredMessage("T", 3, 258, b"one", (("n", "1"),), 1, 2, 5),
        StoredMessage("T", 3, 259, b"two", (), 1, 2, 3),
    ]
    # Compressed besides, and a flag alone is no batch.
    assert len(decode_stored(stored(zlib.compress(body), 0xC1))) == 2
    assert decode_stored(stored(body, 0x80))[0].body == body


BATCHED = bytes.fromhex("00000021 00000000 00000000 00000000 00000003 0001ff 0008 61 01 c3a4 02 62 01 02")


def test_a_message_of_a_batch_as_a_broker_reads_it() -> None:
    assert encode_batched(b"\x00\x01\xff", encode_properties([("a", "ä"), ("b", "")])) == BATCHED
    assert list(decode_batch(BATCHED)) == [(b"\x00\x01\xff", (("a", "ä"), ("b", "")))]


@pytest.mark.parametrize("end", range(1, len(BATCHED)))
def test_every_truncation_of_a_batch_is_an_error(end: int) -> None:
    with pytest.raises(RemotingError):
        list(decode_batch(BATCHED[:end]))


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", ()),
        ("a\x01b\x02", (("a", "b"),)),
        ("a\x01b", (("a", "b"),)),
        ("a\x02b\x01c\x02", (("b", "c"),)),
        ("\x01b\x02", ()),
        ("a\x01b\x01c\x02", (("a", "b\x01c"),)),
        ("\x02\x02", ()),
    ],
)
def test_properties_that_are_whole_and_ones_that_are_not(text: str, pairs: tuple[tuple[str, str], ...]) -> None:
    assert decode_properties(text.encode()) == pairs


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    for decode in (decode_stored, lambda data: list(decode_batch(data)), decode_properties):
        try:
            decode(data)
        except RemotingError:
            continue


@given(st.integers(0, len(STORED) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_message(at: int, damage: bytes) -> None:
    try:
        decode_stored(STORED[:at] + damage + STORED[at + len(damage) :])
    except RemotingError:
        return


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(st.binary(max_size=50), st.lists(st.tuples(texts, texts), max_size=5)), max_size=5))
def test_what_is_written_is_read(messages: list[tuple[bytes, list[tuple[str, str]]]]) -> None:
    data = b"".join(encode_batched(body, encode_properties(pairs)) for body, pairs in messages)
    assert list(decode_batch(data)) == [(body, tuple(pairs)) for body, pairs in messages]
