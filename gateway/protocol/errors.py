"""What is wrong with a peer's bytes. The reason code is the answer; where none can be sent the connection just closes."""

from __future__ import annotations

from schemas.errors import SluicewayError
from schemas.reasons import ReasonCode


class PacketError(SluicewayError):
    """The peer's bytes end the connection. ``reason_code`` is for CONNACK or DISCONNECT."""

    def __init__(self, message: str, reason_code: ReasonCode) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class MalformedPacket(PacketError):
    """Can't be parsed according to the specification (section 4.13)."""

    def __init__(self, message: str, reason_code: ReasonCode = ReasonCode.MALFORMED_PACKET) -> None:
        super().__init__(message, reason_code)


class ProtocolError(PacketError):
    """Parsed, but not allowed here."""

    def __init__(self, message: str, reason_code: ReasonCode = ReasonCode.PROTOCOL_ERROR) -> None:
        super().__init__(message, reason_code)


class Unencodable(SluicewayError):
    """A packet of ours that has no encoding: our mistake, never the peer's. The message names the field."""
