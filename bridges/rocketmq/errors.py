"""What goes wrong with RocketMQ. All are BackendErrors, so that callers who know the port alone know them too."""

from __future__ import annotations

from schemas.errors import BackendError

REMARK_LIMIT = 400
"""Characters of a peer's words that are passed on: brokers send traces of Java."""


class RemotingError(BackendError):
    """The peer's bytes are no remoting frame, or not the answer that the request asks for."""


class Unreachable(BackendError):
    """No connection, or no answer in time: whether the request was carried out is unknown."""


class Refused(BackendError):
    """The peer answered with a code other than success. ``code`` is a ResponseCode's number, ``remark`` the peer's words."""

    def __init__(self, peer: str, code: int, remark: str, *, retryable: bool = True) -> None:
        self.code = code
        self.remark = " ".join(remark.split())[:REMARK_LIMIT]
        super().__init__(f"{peer} refuses: {self.remark or 'no reason given'} (code {code})", retryable=retryable)
