"""Templates over topic levels: `orders-{2}` with the topic `shop/berlin/7` is `orders-berlin`. Level 1 is the parent topic."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_PLACE: Final = re.compile(r"\{([1-9][0-9]{0,2})\}")
_LEVEL: Final = re.compile(r"[A-Za-z0-9._-]+")


def is_template(text: str) -> bool:
    return "{" in text


def compile_template(text: str) -> Callable[[str], str]:
    """Fills the template from a topic. ValueError, with the reason, where the topic lacks a level or has characters that no name takes."""
    if not is_template(text):
        return lambda topic: text
    parts = _PLACE.split(text)

    def fill(topic: str) -> str:
        levels = topic.split("/")
        filled = []
        for index, part in enumerate(parts):
            if not index % 2:
                filled.append(part)
                continue
            level = int(part)
            if level > len(levels):
                raise ValueError(f"the topic has {len(levels)} levels and {text} asks for level {level}")
            if not _LEVEL.fullmatch(levels[level - 1]):
                raise ValueError(f"level {level} of the topic is empty or has characters that {text} can't hold")
            filled.append(levels[level - 1])
        return "".join(filled)

    return fill
