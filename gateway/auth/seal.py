"""Secrets at rest: AES-256-GCM under a key file that only its owner may read.

Secrets are needed in clear for HMAC, so they can't be hashed. What is sealed is bound to a name (the key's id and role): a sealed
secret that is moved to another row doesn't open. keys.py seals and unseals; nobody else does.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import StartError

KEY_BYTES: Final = 32
MAX_KEYS: Final = 2
_NONCE_BYTES: Final = 12
"""What AES-GCM is specified for; random, which is safe far beyond the number of keys an installation makes."""


class Seal:
    """Seals with one key; unseals with that one, or with the one before it while they are being changed (resealing.py)."""

    def __init__(self, key: bytes, *older: bytes) -> None:
        self._cipher = AESGCM(key)
        self._older = tuple(AESGCM(each) for each in older)

    def seal(self, secret: str, name: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), name.encode())

    def reseal(self, sealed: bytes, name: str) -> bytes:
        """The same secret under the key that seals: as it is, where it is that already."""
        try:
            self._open(self._cipher, sealed, name)
        except (InvalidTag, ValueError):
            return self.seal(self.unseal(sealed, name), name)
        return sealed

    @staticmethod
    def _open(cipher: AESGCM, sealed: bytes, name: str) -> str:
        return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode()).decode()

    def unseal(self, sealed: bytes, name: str) -> str:
        """The secret; StartError where key or name are not those it was sealed with."""
        for cipher in (self._cipher, *self._older):
            try:
                return self._open(cipher, sealed, name)
            except (InvalidTag, ValueError):
                continue
        raise StartError(f"the secret of {name} can't be opened with this seal key: give the key file it was sealed with (keys.seal_file)")


def load_seal(path: Path, *, create: bool) -> Seal:
    """The seal of a key file. A missing file is made where ``create`` says that nothing is sealed yet, else it is an error."""
    try:
        if create and not path.exists():
            write_keys(path, (new_key(),))
        return Seal(*_decode(path, read_private(path)))
    except FileNotFoundError:
        raise StartError(f"{path} is missing: secrets in the database can't be opened without it; restore it (keys.seal_file)") from None
    except OSError as error:
        raise StartError(f"{path} can't be used: {error.strerror}") from None


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a file, the one that seals first; StartError where there is none that can be used."""
    try:
        return _decode(path, read_private(path))
    except OSError as error:
        raise StartError(f"{path} can't be read: {error.strerror}; name the key file with keys.seal_file") from None


def write_keys(path: Path, keys: tuple[bytes, ...]) -> None:
    write_private(path, b"".join(base64.b64encode(key) + b"\n" for key in keys))


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def _decode(path: Path, content: bytes) -> tuple[bytes, ...]:
    """A key a line: one, and while it is being changed the old one behind the new one."""
    try:
        keys = tuple(base64.b64decode(line, validate=True) for line in content.split())
    except binascii.Error:
        keys = ()
    if not 0 < len(keys) <= MAX_KEYS or any(len(key) != KEY_BYTES for key in keys):
        raise StartError(f"{path} is not a key file: it must hold {KEY_BYTES} bytes in base64")
    return keys


def read_private(path: Path) -> bytes:
    """The content of a file that must be its owner's alone; StartError where others may read it."""
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StartError(f"{path} may be read by others (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}")
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all, and durable when this returns."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
