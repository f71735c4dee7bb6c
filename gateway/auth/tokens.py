"""Tokens: what an access key lends to a client for a while. Signed texts, of which only revocations are stored.

A token says whose it is (key and instance), which resources it is for (topic filters), which actions (`R`, `W`, `RW`) and until when. Its
form is nobody's business but ours: URL-safe base64 of a version byte, msgpack (packed by zlib where that is shorter) and an HMAC-SHA256. The
secret of the HMAC is the installation's, sealed in the store. What happens to a connection whose token ends is gateway/token_watch.py's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import zlib
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from gateway.auth.access import covers
from gateway.auth.keys import KeyRing
from gateway.auth.shelf import DocumentStore, Shelf
from schemas.errors import SluicewayError
from schemas.reasons import ReasonCode
from schemas.topics import is_topic_filter, matches

TYPES: Final = ("R", "W", "RW")
ACTIONS: Final = {"R": "R", "W": "W", "R,W": "RW", "W,R": "RW"}
"""What ApplyToken calls actions, and the type of the token that comes of it."""

MAX_RESOURCES: Final = 100
MIN_LIFE_MS: Final = 60_000
MAX_LIFE_MS: Final = 30 * 86_400_000
"""Longer lives are cut to this without a word, as the product does."""
MAX_TOKEN: Final = 4096
"""Characters of a token: two of them and the rest have to fit in what may come before a CONNECT is complete (limits.connect_bytes)."""
MAX_REVOKED: Final = 200_000
"""Revoked tokens that are remembered until they expire, each of some 0.3 KB in memory."""

PROPERTY: Final = "token mint"
SEAL_NAME: Final = "token mint"
_MAC_BYTES: Final = 32
_PLAIN, _PACKED = 1, 2
"""The version byte."""


class TokenFault(IntEnum):
    """Why a token is not taken: the codes of `$SYS/tokenInvalidNotice`."""

    FORGED = 1
    EXPIRED = 2
    REVOKED = 3
    RESOURCE = 4
    ACTION = 5
    SIGNATURE = 8
    ACCOUNT = -1


class Token(msgspec.Struct, frozen=True, array_like=True):
    """``expires`` in ms of the wall clock."""

    id: bytes
    key: str
    instance: str
    type: str
    resources: tuple[str, ...]
    expires: int


class Revoked(msgspec.Struct, frozen=True, array_like=True):
    expires: int


class TokenRefused(SluicewayError):
    """A token that can't be made as asked; ``field`` is to blame."""

    reason_code = ReasonCode.NOT_AUTHORIZED

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


class ShownTokens:
    """The tokens that a connection has shown, at most one a type: see ``schemas.identities.Tokens``."""

    __slots__ = ("by_type",)

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self.by_type = {token.type: token for token in tokens}

    def covers(self, action: str, subject: str) -> bool:
        applies = covers if action == "subscribe" else matches
        return any(applies(resource, subject) for kind in self.types(action) for resource in self.by_type[kind].resources)

    def has(self, action: str) -> bool:
        """Whether there is a token for the action at all."""
        return bool(self.types(action))

    def types(self, action: str) -> list[str]:
        """The types of the tokens there are for the action."""
        types = ("W", "RW") if action == "publish" else ("R", "RW")
        return [name for name in types if name in self.by_type]


class PropertyStore(DocumentStore, Protocol):
    """What the mint needs of the store."""

    async def property(self, name: str, default: str | None = None) -> str | None: ...


class Mint:
    """Makes, reads and revokes tokens. Made by ``open_mint``."""

    def __init__(self, store: DocumentStore, keyring: KeyRing, secret: bytes) -> None:
        self._keyring = keyring
        self._secret = secret
        self._revoked: Shelf[Revoked] = Shelf(store, "revoked token", Revoked, MAX_REVOKED)

    async def load(self) -> None:
        await self._revoked.load()

    @property
    def version(self) -> int:
        """Grows when a token was revoked, here or on another node."""
        return self._revoked.version

    def apply(self, key_id: str, resources: Iterable[str], actions: str, expires: int, now: int) -> str:
        """A new token; TokenRefused where it can't be as asked."""
        wanted = tuple(dict.fromkeys(resources))
        if not 0 < len(wanted) <= MAX_RESOURCES:
            raise TokenRefused("Resources", f"must be 1 to {MAX_RESOURCES} topics, separated by commas")
        if not all(is_topic_filter(resource) and not resource.startswith("$") for resource in wanted):
            raise TokenRefused("Resources", "must be topics or topic filters that do not begin with $")
        if actions not in ACTIONS:
            raise TokenRefused("Actions", "must be R, W or R,W")
        if expires < now + MIN_LIFE_MS:
            raise TokenRefused("ExpireTime", "must be at least 60 seconds from now, in milliseconds")
        until = min(expires, now + MAX_LIFE_MS)
        token = Token(secrets.token_bytes(12), key_id, self._keyring.instance_id, ACTIONS[actions], wanted, until)
        text = self._sign(msgspec.msgpack.encode(token))
        if len(text) > MAX_TOKEN:
            raise TokenRefused("Resources", f"make a token of more than {MAX_TOKEN} characters: use + and #, or apply for two tokens")
        return text

    def _sign(self, body: bytes) -> str:
        packed = zlib.compress(body, 9)
        content = bytes((_PACKED,)) + packed if len(packed) < len(body) else bytes((_PLAIN,)) + body
        return base64.urlsafe_b64encode(content + hmac.digest(self._secret, content, "sha256")).rstrip(b"=").decode()

    def read(self, text: str, now: int) -> Token | TokenFault:
        """A token that is valid now, or why it is not."""
        token = self.open(text)
        return token if isinstance(token, TokenFault) else self.fault(token, now) or token

    def open(self, text: str) -> Token | TokenFault:
        """A token that we made, whether it is valid or not. Nothing is unpacked before its signature is verified.

        FORGED: it has not even the form of a token; SIGNATURE: it has, and was changed or signed by somebody else.
        """
        if len(text) > MAX_TOKEN:
            return TokenFault.FORGED
        try:
            signed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            return TokenFault.FORGED
        content, mac = signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]
        if len(content) < 2 or content[0] not in (_PLAIN, _PACKED):
            return TokenFault.FORGED
        if not hmac.compare_digest(hmac.digest(self._secret, content, "sha256"), mac):
            return TokenFault.SIGNATURE
        return msgspec.msgpack.decode(zlib.decompress(content[1:]) if content[0] == _PACKED else content[1:], type=Token)

    def fault(self, token: Token, now: int) -> TokenFault | None:
        """Why a token that we made is not valid now."""
        if self.is_revoked(token):
            return TokenFault.REVOKED
        if token.expires <= now:
            return TokenFault.EXPIRED
        if token.instance != self._keyring.instance_id:
            return TokenFault.RESOURCE
        return None if self._keyring.role(token.key) is not None else TokenFault.ACCOUNT

    def derive(self, name: str) -> bytes:
        """Bytes for another purpose that the installation always gets for this name, and nobody else can make."""
        return hmac.digest(self._secret, b"derived " + name.encode(), "sha256")

    def is_revoked(self, token: Token) -> bool:
        return token.id.hex() in self._revoked

    async def revoke(self, token: Token, now: int) -> None:
        """Durable when this returns. An expired token needs none."""
        self._revoked.forget([name for name, revoked in list(self._revoked.items().items()) if revoked.expires <= now])
        if token.expires > now:
            await self._revoked.put(token.id.hex(), Revoked(token.expires), expires_at=token.expires)

    def read_password(self, password: str, key_id: str, now: int) -> ShownTokens | TokenFault:
        """The tokens of a Token login's password, `<type>|<token>` once or more. All must be valid, and of the key that logs in."""
        parts = password.split("|")
        types = parts[0::2]
        if len(parts) % 2 or len(set(types)) != len(types) or not set(types) <= set(TYPES):
            return TokenFault.FORGED
        tokens = []
        for kind, text in zip(types, parts[1::2], strict=True):
            token = self.read_of(kind, text, key_id, now)
            if isinstance(token, TokenFault):
                return token
            tokens.append(token)
        return ShownTokens(tokens)

    def read_of(self, kind: str, text: str, key_id: str, now: int) -> Token | TokenFault:
        """A valid token of a type, lent by a key."""
        token = self.read(text, now)
        if isinstance(token, TokenFault):
            return token
        if token.key != key_id:
            return TokenFault.ACCOUNT
        return token if token.type == kind else TokenFault.ACTION


async def open_mint(store: PropertyStore, keyring: KeyRing) -> Mint:
    """The mint of a store, with its secret made where there is none."""
    fresh = base64.b64encode(keyring.seal.seal(secrets.token_hex(32), SEAL_NAME)).decode()
    kept = await store.property(PROPERTY, fresh) or fresh
    mint = Mint(store, keyring, bytes.fromhex(keyring.seal.unseal(base64.b64decode(kept), SEAL_NAME)))
    await mint.load()
    return mint
