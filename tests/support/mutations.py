"""What somebody who has no secret might send in the place of a right text: changed by a character, a bit, a case, a padding, or more.

``Draw`` is seeded and prints its seed. How many of which are tried is ``PLAN``: ten thousand in all, and each suite asserts its own part.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PLAN: Final = {"Signature": 2_500, "DeviceCredential": 500, "identity": 500, "token": 1_000, "jwt": 500, "V1": 2_500, "ACS3": 2_500}
"""Mutations tried, by what they are of."""

ALPHABET: Final = "ABCXYZabcxyz0189+/=-_.|%&;, \t\r\n\x00\x7f\xa0\xe9\u200b\uff21\u212a\U0001f511"
"""Of base64 in both forms, separators, white space, what prints as nothing, what folds to ASCII, and four bytes in UTF-8."""

BLOCK: Final = 64
"""Bytes of a block of SHA-1 and SHA-256."""

WIDE: Final = 0xFEE0
"""From an ASCII character to its full-width form, which normalises to it."""


class Draw(random.Random):
    """Chance with a seed that a failing test shows."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        print(f"seed {seed}")

    def other(self, make: Callable[[], T], than: T) -> T:
        """What ``make`` makes, until it is something else."""
        while (made := make()) == than:
            pass
        return made

    def changed(self, text: str) -> str:
        """Another text than this one, in any of the ways below."""
        return self.other(lambda: self.choice(WAYS)(self, text), text)


def _at(draw: Draw, text: str) -> int:
    return draw.randrange(len(text)) if text else 0


def flip_bit(draw: Draw, text: str) -> str:
    at = _at(draw, text)
    return text[:at] + chr(ord(text[at]) ^ 1 << draw.randrange(7)) + text[at + 1 :] if text else "\x01"


def drop(draw: Draw, text: str) -> str:
    at = _at(draw, text)
    return text[:at] + text[at + 1 :]


def add(draw: Draw, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice(ALPHABET) + text[at:]


def put(draw: Draw, text: str) -> str:
    at = _at(draw, text)
    return text[:at] + draw.choice(ALPHABET) + text[at + 1 :]


def other_case(draw: Draw, text: str) -> str:
    at = _at(draw, text)
    return draw.choice((text[:at] + text[at : at + 1].swapcase() + text[at + 1 :], text.upper(), text.lower(), text.swapcase()))


def neighbours(draw: Draw, text: str) -> str:
    at = _at(draw, text)
    return text[:at] + text[at : at + 2][::-1] + text[at + 2 :]


def part(draw: Draw, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    return draw.choice((text[:at], text[at:], text[at:] + text[:at], text[::-1], ""))


def more(draw: Draw, text: str) -> str:
    return draw.choice((text * 2, text * 100, text + "A" * 3_000, " " + text, text + " ", text + "\n", text + "\x00", "\ufeff" + text))


def padding(draw: Draw, text: str) -> str:
    bare = text.rstrip("=")
    return draw.choice((bare, bare + "=", bare + "==", bare + "====", "=" + text, text.translate(str.maketrans("+/-_", "-_+/"))))


def wide(draw: Draw, text: str) -> str:
    at = _at(draw, text)
    return text[:at] + "".join(chr(ord(c) + WIDE) for c in text[at : at + 1] if "!" <= c <= "~") + text[at + 1 :]


WAYS: Final[tuple[Callable[[Draw, str], str], ...]] = (flip_bit, drop, add, put, other_case, neighbours, part, more, padding, wide)


def key_block(secret: str) -> bytes:
    """What HMAC makes of a key before anything else (RFC 2104, section 2), for keys of a block or less: what has the same block is the same key."""
    assert len(secret.encode()) <= BLOCK, "a longer key is hashed first"
    return secret.encode().ljust(BLOCK, b"\x00")


def other_secret(draw: Draw, secret: str) -> str:
    """A secret that is another key."""
    while True:
        made = draw.changed(secret).encode(errors="replace").decode()
        if len(made.encode()) > BLOCK or key_block(made) != key_block(secret):
            return made
