"""An action's parameters, read by name and kind. What is missing or wrong is the fault that the action's group of the product answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

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

    def pairs(self, name: str, limit: int) -> list[tuple[str, str]]:
        """`Name.1.Key`, `Name.1.Value` and so on."""
        found: list[tuple[str, str]] = []
        while (key := self._values.get(f"{name}.{len(found) + 1}.Key")) is not None:
            value = self._values.get(f"{name}.{len(found) + 1}.Value", "")
            found.append((key, value))
            if len(found) > limit or not 0 < len(key) <= 128 or len(value) > 128 or "\x00" in key + value:
                raise self.fault(name, f"must be at most {limit} pairs of a key and a value of at most 128 characters")
        return found
