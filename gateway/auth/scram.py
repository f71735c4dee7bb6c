"""SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: two texts in, two texts out. Pure; MQTT 5 carries them in CONNECT, AUTH and CONNACK.

The password never crosses the wire, and what does is of no use for another login. Without channel binding: TLS ends in front of MQTT.
Who has no identity is led through the same exchange with a salt of their own, and fails at its end like a wrong password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final

import msgspec

METHOD: Final = "SCRAM-SHA-256"
ITERATIONS: Final = 4096
"""The least that RFC 7677 allows. Secrets are sealed at rest, not stored as hashes, so more would slow logins and protect nothing."""
MAX_MESSAGE: Final = 1024

_FIRST: Final = re.compile(r"(?P<header>[ny],(?:a=[^,]*)?,)(?P<bare>n=(?P<user>[^,]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]{8,256}))(?:,.*)?", re.DOTALL)
_FINAL: Final = re.compile(r"(?P<bare>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)),p=(?P<proof>[A-Za-z0-9+/=]+)")


class ScramRefused(Exception):
    """What came is no message of SCRAM, or its proof is wrong; for the log."""


class ClientFirst(msgspec.Struct, frozen=True):
    header: str
    bare: str
    user: str
    nonce: str


def read_first(data: bytes) -> ClientFirst:
    """The client's first message."""
    matched = _FIRST.fullmatch(_text(data))
    if matched is None:
        raise ScramRefused("scram: the first message is not n,,n=USER,r=NONCE")
    user = matched["user"].replace("=2C", ",").replace("=3D", "=")
    return ClientFirst(matched["header"], matched["bare"], user, matched["nonce"])


def salted(secret: bytes, salt: bytes) -> bytes:
    """Some milliseconds of work, in which other threads may run."""
    return hashlib.pbkdf2_hmac("sha256", secret, salt, ITERATIONS)


def server_first(first: ClientFirst, nonce: str, salt: bytes) -> str:
    """``nonce`` is the server's part, fresh for each exchange."""
    return f"r={first.nonce}{nonce},s={base64.b64encode(salt).decode()},i={ITERATIONS}"


def finish(first: ClientFirst, sent: str, data: bytes, password: bytes, *, known: bool) -> bytes:
    """The server's last message, for a client that has proved to know the secret; ``password`` is the salted one."""
    matched = _FINAL.fullmatch(_text(data))
    if matched is None:
        raise ScramRefused("scram: the last message is not c=BINDING,r=NONCE,p=PROOF")
    binding = base64.b64encode(first.header.encode()).decode()
    if matched["nonce"] != sent.partition(",")[0][2:] or matched["binding"] != binding:
        raise ScramRefused("scram: another nonce or channel binding")
    signed = f"{first.bare},{sent},{matched['bare']}".encode()
    client_key = hmac.digest(password, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    signature = hmac.digest(stored_key, signed, "sha256")
    expected = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    try:
        proof = base64.b64decode(matched["proof"], validate=True)
    except binascii.Error:
        proof = b""
    if not hmac.compare_digest(expected, proof) or not known:
        raise ScramRefused("scram: unknown identity or wrong secret")
    return b"v=" + base64.b64encode(hmac.digest(hmac.digest(password, b"Server Key", "sha256"), signed, "sha256"))


def _text(data: bytes) -> str:
    if len(data) > MAX_MESSAGE:
        raise ScramRefused("scram: the message is too long")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ScramRefused("scram: the message is not UTF-8") from None
