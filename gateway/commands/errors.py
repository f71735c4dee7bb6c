"""What a command says when it can't: one line on standard error, exit code 1."""

from __future__ import annotations

from schemas.errors import SluicewayError


class CommandError(SluicewayError):
    """The command failed; the message says why and what to do."""
