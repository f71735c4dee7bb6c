"""What a rule says of itself: its state and why, its counts, its rate and its lag. Plain numbers, read when somebody asks."""

from __future__ import annotations

from typing import Final, Literal

from schemas.rules import RuleCounts, RuleState

StateName = Literal["disabled", "starting", "running", "waiting", "gap", "stopped", "failed"]

RATE_OVER: Final = 5.0
"""Seconds over which a rate is smoothed."""


class Progress:
    """``state`` is running only after the first success. ``waits_for`` says why it is waiting, stopped or failed."""

    def __init__(self, state: RuleState | None = None) -> None:
        counts = RuleCounts() if state is None else state.counts
        self.state: StateName = "starting"
        self.waits_for = ""
        self.last_error = ""
        self.last_error_at = 0
        self.last_sent = 0
        self.rate = 0.0
        self.sent = counts.sent
        self.filtered = counts.filtered
        self.dead = counts.dead
        self.looped = counts.looped
        self.lost = counts.lost
        self.skipped = counts.skipped
        self.letters_dropped = counts.letters_dropped
        self.letters = 1 if state is None else state.letters
        self.behind = False
        """Whether a gap was found that is not caught up with yet."""
        self._before = self.sent
        self._measured = 0.0

    def counts(self) -> RuleCounts:
        return RuleCounts(self.sent, self.filtered, self.dead, self.looped, self.lost, self.skipped, self.letters_dropped)

    def succeeded(self, now: int) -> None:
        """Something went through, at ``now`` ms."""
        self.state = "gap" if self.behind else "running"
        self.waits_for = ""
        self.last_sent = now

    def waits(self, reason: str, now: int) -> None:
        """It can't go on for now, and tries again by itself."""
        self.state = "waiting"
        self.fault(reason, now)

    def stops(self, reason: str, now: int, state: StateName = "stopped") -> None:
        """It does not go on by itself."""
        self.state = state
        self.fault(reason, now)

    def fault(self, reason: str, now: int) -> None:
        self.waits_for = self.last_error = " ".join(reason.split())[:500]
        self.last_error_at = now

    def measure(self, now: float) -> None:
        """Renew the rate; ``now`` monotonic seconds."""
        passed = now - self._measured
        if self._measured and passed > 0:
            weight = min(1.0, passed / RATE_OVER)
            self.rate += ((self.sent - self._before) / passed - self.rate) * weight
            if self.rate < 0.005:
                self.rate = 0.0
        self._before, self._measured = self.sent, now
