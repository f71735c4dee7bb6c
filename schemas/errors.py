"""The root of all errors. An error carries its answer: the MQTT reason code for the peer and whether trying again helps."""

from __future__ import annotations

from schemas.reasons import ReasonCode


class SluicewayError(Exception):
    """Root. ``reason_code`` is what an MQTT peer is told; ``retryable`` whether the same call may succeed later."""

    reason_code: ReasonCode = ReasonCode.UNSPECIFIED_ERROR
    retryable: bool = False


class StartError(SluicewayError):
    """The program can't start as configured: one line to the user, exit code 2, nothing changed."""


class SettingsError(StartError):
    """A setting is unknown or has a bad value; the message names it and the fix."""


class LogError(SluicewayError):
    """The log could not make a record durable. Transient: the disk is full or failing for now."""

    reason_code = ReasonCode.UNSPECIFIED_ERROR
    retryable = True


class LogDamaged(StartError):
    """Stored frames fail their check, or end before positions that the store holds."""


class StoreError(SluicewayError):
    """The store could not commit or read."""

    retryable = True


class StoreBusy(StoreError):
    """Another node held what was asked for, for longer than is waited for at a time: asked again it will be had."""


class BackendError(SluicewayError):
    """A backend (Kafka, RocketMQ) did not do what it was asked. ``retryable``: whether it passes by itself or by what the backend's owner does."""

    retryable = True

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable
