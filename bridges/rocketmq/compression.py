"""Bodies that other producers compressed. The form is named by three bits of a message's system flag; what comes out is bounded."""

from __future__ import annotations

import io
import zlib

import lz4.frame  # type: ignore[import-untyped]
import zstandard

from bridges.rocketmq.errors import RemotingError

COMPRESSED = 0x1
_FORM = 0x7 << 8
_LZ4, _ZSTD = 0x1 << 8, 0x2 << 8

BODY_LIMIT = 32 * 1024 * 1024
"""Bytes of an unpacked body. A broker's usual limit is 4 MiB before compression; this one keeps a bomb from filling the memory."""


def unpack(body: bytes, system_flag: int) -> bytes:
    """The body as its producer had it. Producers before 5.0 name no form and use zlib."""
    form = system_flag & _FORM
    try:
        if form == _ZSTD:
            unpacked, whole = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read(BODY_LIMIT + 1), True
        else:
            decompressor = lz4.frame.LZ4FrameDecompressor() if form == _LZ4 else zlib.decompressobj()
            unpacked = bytes(decompressor.decompress(body, BODY_LIMIT + 1))
            whole = decompressor.eof
    except (zlib.error, zstandard.ZstdError, RuntimeError, EOFError, ValueError) as error:
        raise RemotingError(f"a compressed body can't be unpacked: {error}") from error
    if len(unpacked) > BODY_LIMIT:
        raise RemotingError(f"a compressed body unpacks to more than {BODY_LIMIT} bytes")
    if not whole:
        raise RemotingError("a compressed body ends too early")
    return unpacked
