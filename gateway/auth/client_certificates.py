"""Authorities that were registered, and the certificates of devices that they have issued: who may come in by certificate, and as whom.

A device's certificate registers itself at the first connect that succeeds. Its principal is `cert:<name of the authority>/<common name>`, so
that sessions and rules outlive a renewed certificate, and a renewed authority of the same name. An authority and a certificate can be
inactive; one that was deleted stays refused until it expires, or is activated. Nothing is kept of what has expired. What a certificate says is
read by x509.py; `issued` means by the authority itself: to admit what an intermediate authority issues, register that one.
"""

from __future__ import annotations

import asyncio
import hashlib
from enum import IntEnum
from typing import Final

import msgspec
from cryptography import x509

from gateway.auth.shelf import DocumentStore, Shelf
from gateway.auth.x509 import (
    CertificateRefused,
    check_verification,
    common_name,
    has_weak_signature,
    is_issued_by,
    ms,
    read_authority,
    serial_text,
    to_pem,
)

MAX_AUTHORITIES: Final = 1_000
"""Each is sought at no handshake but loaded, all of them, when one changes."""
MAX_DEVICES: Final = 100_000
"""Device certificates, deleted ones included: as many as there may be connections, each of some 1.5 KB in memory."""
MAX_NAME: Final = 64


class State(IntEnum):
    """What the product calls status, and DELETED, which it has no word for."""

    INACTIVE = 0
    ACTIVE = 1
    DELETED = 2


class Authority(msgspec.Struct, frozen=True):
    """``content`` and ``verification`` are PEM; times in ms."""

    serial: str
    name: str
    content: str
    verification: str
    code: str
    state: State
    begin: int
    end: int


class DeviceCertificate(msgspec.Struct, frozen=True, gc=False):
    """``content`` is DER, empty of a deleted one; ``name`` the common name."""

    authority: str
    serial: str
    name: str
    content: bytes
    digest: bytes
    state: State
    begin: int
    end: int

    @property
    def key(self) -> str:
        return f"{self.authority}/{self.serial}"


class Holder(msgspec.Struct, frozen=True, gc=False):
    """Whose certificate it is. ``key`` is its place in the register; ``fresh``: it has none yet."""

    key: str
    principal: str
    name: str
    end: int
    fresh: DeviceCertificate | None = None


class ClientCertificates:
    """``code`` is the registration code of this installation."""

    def __init__(self, store: DocumentStore, code: str) -> None:
        self.code = code
        self.version = 0
        """Grows when a decision may have changed; not when a certificate registers itself, which nobody was waiting for."""
        self.trusted = ""
        """All authorities as PEM, inactive ones too: their devices are told that they are refused, and the log why."""
        self._authorities: Shelf[Authority] = Shelf(store, "authority", Authority, MAX_AUTHORITIES)
        self._devices: Shelf[DeviceCertificate] = Shelf(store, "device certificate", DeviceCertificate, MAX_DEVICES)
        self._changing = asyncio.Lock()
        self._issuers: dict[bytes, list[tuple[str, x509.Certificate]]] = {}
        """By subject the serial number and certificate of authorities, active ones first."""
        self._active_names: set[str] = set()
        self._digests: dict[bytes, str] = {}
        self._holders: dict[str, list[int]] = {}
        """By principal how many of its certificates are refused, and how many active."""

    async def load(self) -> None:
        """As the store has them, at a start and whenever another node may have changed some."""
        async with self._changing:
            authorities, devices = self._authorities.version, self._devices.version
            refused, known = self._standing()
            await self._authorities.load()
            await self._devices.load()
            if (authorities, devices) == (self._authorities.version, self._devices.version):
                return
            self._digests.clear()
            self._holders.clear()
            for device in self._devices.items().values():
                self._count(device, 1)
            if authorities != self._authorities.version:
                self._index()
                return
            refused_now, known_now = self._standing()
            if refused != refused_now or any(known.get(name, True) is not is_so for name, is_so in known_now.items()):
                self.version += 1

    def _standing(self) -> tuple[set[str], dict[str, bool]]:
        """The certificates that are refused, and which principals are known by all there are."""
        refused = {key for key, device in self._devices.items().items() if device.state is not State.ACTIVE}
        return refused, {name: self.is_known(name) for name in self._holders}

    def __len__(self) -> int:
        return len(self._authorities)

    # Who comes in

    def find(self, der: bytes, now: int) -> Holder | str | None:
        """Whose certificate it is, or why it is refused; None where no authority here has issued it. TLS has verified its chain. ``now`` in ms."""
        digest = hashlib.sha256(der).digest()
        key = self._digests.get(digest)
        device = self._devices.get(key) if key is not None else self._read(der, digest)
        if device is None:
            return None
        authority = self._authorities.get(device.authority)
        if authority is None:
            return "certificate of an authority that is gone"
        if authority.state is not State.ACTIVE:
            return "certificate of an inactive authority"
        held = self._devices.get(device.key)
        if held is not None and held.state is not State.ACTIVE:
            return f"{held.state.name.lower()} certificate"
        if held is not None and held.digest != digest:
            return "serial number of another certificate"
        if not device.name:
            return "certificate without one common name"
        if now > device.end:
            return "expired certificate"
        return Holder(device.key, f"cert:{authority.name}/{device.name}", device.name, device.end, device if held is None else None)

    def _read(self, der: bytes, digest: bytes) -> DeviceCertificate | None:
        """A certificate that is not registered; None where no authority here has issued it. A name that is not to be used is empty."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            issuers = self._issuers.get(certificate.issuer.public_bytes(), ())
            serial = next((serial for serial, authority in issuers if is_issued_by(certificate, authority)), None)
            if serial is None or has_weak_signature(certificate):
                return None
            begin, end = ms(certificate.not_valid_before_utc), ms(certificate.not_valid_after_utc)
        except ValueError:
            return None
        name, own = common_name(certificate), serial_text(certificate.serial_number)
        return DeviceCertificate(serial, own, name, der, digest, State.ACTIVE, begin, end)

    async def admit(self, holder: Holder, now: int) -> bool:
        """Register a certificate that has no place yet; False where another connect is just doing that. ShelfFull where there is no room."""
        device = holder.fresh
        if device is not None and holder.key not in self._devices:
            if len(self._devices) >= MAX_DEVICES:
                self._forget_expired(now)
            if not await self._devices.add(holder.key, device, expires_at=device.end):
                return False
            if device.digest not in self._digests:  # else ``load`` has found it in the store meanwhile
                self._count(device, 1)
            refused, active = self._holders[holder.principal]
            if refused and active == 1:
                self.version += 1  # who was refused is there again, with a new certificate
        return self.is_current(holder.key)

    def is_current(self, key: str) -> bool:
        """Whether a connection made with the certificate may go on."""
        device = self._devices.get(key)
        authority = self._authorities.get(key.partition("/")[0])
        return device is not None and authority is not None and device.state is State.ACTIVE is authority.state

    def is_known(self, principal: str) -> bool:
        """Whether a principal's name is one of an active authority, and not all of its certificates are refused."""
        refused, active = self._holders.get(principal, (0, 0))
        return (active > 0 or not refused) and principal.removeprefix("cert:").partition("/")[0] in self._active_names

    # Authorities

    def authority(self, serial: str) -> Authority | None:
        return self._authorities.get(serial)

    def authorities(self, start: int, limit: int) -> tuple[list[Authority], int]:
        """By serial number, and how many there are in all."""
        names = sorted(self._authorities.items())
        return [self._authorities.items()[name] for name in names[start : start + limit]], len(names)

    async def register(self, name: str, content: str, verification: str, now: int) -> Authority:
        """A new authority, active. CertificateRefused, ShelfFull."""
        if not 0 < len(name) <= MAX_NAME or not name.isprintable() or any(c in name for c in "/*"):
            raise CertificateRefused("name", f"must have 1 to {MAX_NAME} printable characters, none of them / or *")
        certificate = read_authority(content, now)
        proof = check_verification(verification, certificate, self.code, now)
        serial = serial_text(certificate.serial_number)
        begin, end = ms(certificate.not_valid_before_utc), ms(certificate.not_valid_after_utc)
        authority = Authority(serial, name, to_pem(certificate), to_pem(proof), self.code, State.ACTIVE, begin, end)
        async with self._changing:
            if not await self._authorities.add(serial, authority):
                raise CertificateRefused("ca", f"is registered already, or another one of the serial number {serial} is", exists=True)
            for device in self._of(serial):  # refused ones, of a time when it was registered before
                self._count(device, 1)
            self._index()
        return authority

    async def set_authority(self, serial: str, *, active: bool) -> bool:
        """Activate or inactivate; False where there is none."""
        async with self._changing:
            authority = self._authorities.get(serial)
            if authority is None:
                return False
            await self._authorities.put(serial, msgspec.structs.replace(authority, state=State(active)))
            self._index()
        return True

    async def delete_authority(self, serial: str) -> bool:
        """With the certificates that it has issued; those that were refused stay refused, should it be registered again."""
        async with self._changing:
            authority = self._authorities.get(serial)
            if authority is None:
                return False
            await self._authorities.drop(serial)
            self._index()
            devices = self._of(serial)
            await self._devices.drop(*(device.key for device in devices if device.state is State.ACTIVE))
            for device in devices:
                self._count(device, -1, authority)
                if device.state is not State.ACTIVE:
                    self._count(device, 1)
                if device.state is State.INACTIVE:
                    await self._bury(device)
        return True

    def _of(self, authority: str) -> list[DeviceCertificate]:
        return [device for device in self._devices.items().values() if device.authority == authority]

    # Certificates of devices

    def device(self, authority: str, serial: str) -> DeviceCertificate | None:
        found = self._devices.get(f"{authority}/{serial}")
        return None if found is None or found.state is State.DELETED else found

    def devices(self, authority: str, start: int, limit: int, now: int) -> tuple[list[DeviceCertificate], int]:
        """By authority and serial number, and how many there are in all; ``authority`` empty for every one."""
        self._forget_expired(now)
        there = ((key, device) for key, device in self._devices.items().items() if device.state is not State.DELETED)
        keys = sorted(key for key, device in there if authority in ("", device.authority))
        return [self._devices.items()[key] for key in keys[start : start + limit]], len(keys)

    async def set_device(self, authority: str, serial: str, *, active: bool) -> bool:
        """Activate or inactivate; False where there is none. To activate one that was deleted is to let it register itself again."""
        async with self._changing:
            device = self._devices.get(f"{authority}/{serial}")
            if device is None or (device.state is State.DELETED and not active):
                return False
            if device.state is State.DELETED:
                await self._devices.drop(device.key)
                self._count(device, -1)
                self.version += 1
            else:
                await self._replace(device, msgspec.structs.replace(device, state=State(active)))
        return True

    async def delete_device(self, authority: str, serial: str) -> bool:
        """False where there is none."""
        async with self._changing:
            device = self.device(authority, serial)
            if device is None:
                return False
            await self._bury(device)
        return True

    async def _bury(self, device: DeviceCertificate) -> None:
        await self._replace(device, msgspec.structs.replace(device, content=b"", state=State.DELETED))

    async def _replace(self, before: DeviceCertificate, after: DeviceCertificate) -> None:
        await self._devices.put(after.key, after, expires_at=after.end)
        self._count(before, -1)
        self._count(after, 1)
        self.version += 1

    def _forget_expired(self, now: int) -> None:
        """The store has swept them."""
        expired = [device for device in self._devices.items().values() if device.end < now]
        for device in expired:
            self._count(device, -1)
        self._devices.forget([device.key for device in expired])

    def _index(self) -> None:
        """What follows from the authorities, after a change of them."""
        authorities = sorted(self._authorities.items().values(), key=lambda authority: -authority.state)
        self.trusted = "".join(authority.content for authority in authorities)
        self._active_names = {authority.name for authority in authorities if authority.state is State.ACTIVE}
        self._issuers = {}
        for authority in authorities:
            certificate = x509.load_pem_x509_certificate(authority.content.encode())
            self._issuers.setdefault(certificate.subject.public_bytes(), []).append((authority.serial, certificate))
        self.version += 1

    def _count(self, device: DeviceCertificate, step: int, authority: Authority | None = None) -> None:
        """A certificate came (1) or went (-1); ``authority`` where the register has it no more."""
        if step > 0:
            self._digests[device.digest] = device.key
        else:
            self._digests.pop(device.digest, None)
        authority = authority or self._authorities.get(device.authority)
        if authority is not None:
            principal = f"cert:{authority.name}/{device.name}"
            counts = self._holders.setdefault(principal, [0, 0])
            counts[device.state is State.ACTIVE] += step
            if not any(counts):
                del self._holders[principal]
