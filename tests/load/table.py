"""The table of measured figures: a line a figure as soon as it is known, and in the end how many missed their goal."""

from __future__ import annotations


class Table:
    def __init__(self) -> None:
        self._missed: list[str] = []
        self._count = 0

    @property
    def passed(self) -> bool:
        return not self._missed

    def add(self, name: str, measured: str, goal: str, passed: bool, remark: str = "") -> None:
        self._count += 1
        if not passed:
            self._missed.append(name)
        print(f"{'pass' if passed else 'MISS'}  {name:<28} {measured:>14}  goal {goal:<16} {remark}".rstrip(), flush=True)

    def note(self, text: str) -> None:
        print(f"      {text}", flush=True)

    def summary(self) -> None:
        missed = f"; missed: {', '.join(self._missed)}" if self._missed else ""
        print(f"{self._count - len(self._missed)} of {self._count} figures reach their goal{missed}")
