"""An action's parameters, read by name and kind. What is missing or wrong is the fault that the action's group of the product answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway.openapi.faults import Fault

MAX_TEXT: Final = 65_536
"""Characters of a parameter without a limit of its own: payloads."""
MAX_NAME: Final = 256


class Parameters:
    """``bad`` is the code for a parameter that is missing or wrong."""

    def __init__(self, values: Mapping[str, str], bad: str) -> None:
        self._values = values
        self._bad = bad

    def fault(self, name: str, detail: str) -> Fault:
        return Fault(self._bad, name, detail)

    def text(self, name: str, limit: int = MAX_NAME) -> str:
        """Must be there and not be empty."""
        value = self._values.get(name, "")
        if not value:
            raise self.fault(name, "is missing")
        if len(value) > limit or "\x00" in value:
            raise self.fault(name, f"must have at most {limit} characters, none of them NUL")
        return value

    def optional(self, name: str, limit: int = MAX_NAME) -> str:
        """Empty where it is missing."""
        return self.text(name, limit) if self._values.get(name) else ""

    def number(self, name: str, low: int, high: int, default: int | None = None) -> int:
        value = self._values.get(name, "")
        if not value and default is not None:
            return default
        if not (value.isascii() and value.isdigit()) or len(value) > 19 or not low <= int(value) <= high:
            raise self.fault(name, f"must be a whole number from {low} to {high}")
        return int(value)

    def choice(self, name: str, words: Sequence[str]) -> str:
        value = self.text(name)
        if value not in words:
            raise self.fault(name, f"must be one of {', '.join(words)}")
        return value

    def listed(self, name: str, limit: int, *, required: bool = True, longest: int = MAX_NAME) -> list[str]:
        """`Name.1`, `Name.2` and so on, without gaps."""
        found: list[str] = []
        while (value := self._values.get(f"{name}.{len(found) + 1}")) is not None:
            found.append(value)
            if len(found) > limit:
                raise self.fault(name, f"has more than {limit} entries")
        if not found and required:
            raise self.fault(name, "is missing")
        if any(not value or len(value) > longest or "\x00" in value for value in found):
            raise self.fault(name, f"has an entry that is empty or longer than {longest} characters")
        return found

    def numbered(self, name: str, limit: int) -> int:
        """How many groups of parameters `Name.1.…`, `Name.2.…` there are: at least one, without gaps."""
        numbers = {key.removeprefix(f"{name}.").partition(".")[0] for key in self._values if key.startswith(f"{name}.")}
        if not numbers:
            raise self.fault(name, "is missing")
        if len(numbers) > limit:
            raise self.fault(name, f"has more than {limit} entries")
        if numbers != {str(number) for number in range(1, len(numbers) + 1)}:
            raise self.fault(name, "must be numbered from 1 without gaps")
        return len(numbers)

    def tags(self, name: str, limit: int) -> dict[str, str]:
        """A list of keys and values in JSON, as the product's SDKs have it, or one that is flattened like other lists."""
        text = self._values.get(name, "")
        try:
            pairs = [(tag.key, tag.value) for tag in _read_tags(text)] if text else self.pairs(name, limit)
        except (msgspec.MsgspecError, Fault):
            pairs = [("", "")]
        if len(pairs) > limit or any(not _is_tag(key, value) for key, value in pairs):
            raise Fault("InvalidParameter", name, f'must be a list [{{"Key":"k","Value":"v"}}] of at most {limit} pairs of at most 128 characters')
        return dict(pairs)

    def pairs(self, name: str, limit: int) -> list[tuple[str, str]]:
        """`Name.1.Key`, `Name.1.Value` and so on."""
        found: list[tuple[str, str]] = []
        while (key := self._values.get(f"{name}.{len(found) + 1}.Key")) is not None:
            value = self._values.get(f"{name}.{len(found) + 1}.Value", "")
            found.append((key, value))
            if len(found) > limit or not _is_tag(key, value):
                raise self.fault(name, f"must be at most {limit} pairs of a key and a value of at most 128 characters")
        return found


class _Tag(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    key: str
    value: str = ""


_read_tags: Final = msgspec.json.Decoder(list[_Tag]).decode


def _is_tag(key: str, value: str) -> bool:
    return 0 < len(key) <= 128 and len(value) <= 128 and "\x00" not in key + value
