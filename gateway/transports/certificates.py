"""The server's certificate and the authorities of its clients' ones: loaded, checked, watched and replaced while serving.

A new pair is loaded into a new context first; one that doesn't load leaves the old in force. Handshakes ask for the
context in force when they begin, so a change reaches new connections only. A client is asked for a certificate where there is an authority that
it could be of; one that it shows has to verify. Neighbours: tls.py, server_names.py (which of several certificates it is),
gateway/auth/client_certificates.py.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from gateway.file_state import FileState, file_state
from gateway.transports.server_names import ServerNames, dns_names
from schemas.errors import StartError
from schemas.settings import TlsSettings

_log = logging.getLogger(__name__)

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has no other suites."""
FILES: Final = ("certificate", "key", "client_ca", "client_crl")
"""Settings that name a file."""
OTHERS: Final = 0o077
"""Permission bits by which others than the owner reach a file."""

Fingerprint = tuple[FileState, ...]


def _passphrase_wanted() -> bytes:
    # Without this OpenSSL would ask on the terminal and wait.
    raise StartError("tls.key: the file is protected by a passphrase; give a key without one, readable by this user alone")


def _read(name: str, path: Path) -> None:
    """Files that can't be read are told apart from files that make no sense; ssl names neither."""
    try:
        path.read_bytes()
    except OSError as error:
        raise StartError(f"tls.{name}: {path} can't be read ({error.strerror}); give a PEM file that this user may read") from None


def load_context(settings: TlsSettings, trusted: str = "") -> ssl.SSLContext:
    """A context for new handshakes; StartError names the setting that is wrong. ``trusted``: registered authorities, as PEM."""
    if settings.certificate is None or settings.key is None:
        missing = "certificate" if settings.certificate is None else "key"
        raise StartError(f"tls.{missing}: a listener with TLS (mqtts, wss) needs tls.certificate and tls.key; give PEM files")
    for name in FILES:
        path = getattr(settings, name)
        if path is not None:
            _read(name, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(settings.certificate, settings.key, _passphrase_wanted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise StartError(f"tls.key: {settings.key} is not the key of {settings.certificate}; give the pair that belongs together") from None
        words = f"tls.certificate: {settings.certificate} and tls.key {settings.key} are not a PEM chain and its key ({error.reason})"
        raise StartError(f"{words}; give the files unencrypted, in PEM form") from None
    if settings.client_ca is not None or settings.require_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    elif trusted:
        context.verify_mode = ssl.CERT_OPTIONAL
    if trusted:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what was registered may be an intermediate authority
        context.load_verify_locations(cadata=trusted)
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except ssl.SSLError as error:
            raise StartError(f"tls.client_ca: {settings.client_ca} holds no CA certificate ({error.reason}); give a PEM file") from None
    if settings.client_crl is not None:
        _load_revocations(context, settings.client_crl)
    return context


def _load_revocations(context: ssl.SSLContext, file: Path) -> None:
    """A list that has expired, or is missing for an authority, refuses that authority's certificates: OpenSSL sees to it."""
    with contextlib.suppress(ssl.SSLError):
        context.load_verify_locations(file)
    if not context.cert_store_stats()["crl"]:
        raise StartError(f"tls.client_crl: {file} holds no revocation list; give a PEM file of X.509 CRLs")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def load_named(settings: TlsSettings, trusted: str = "") -> ServerNames:
    """The contexts of the certificates by server name. StartError names the section. They all know the authorities of clients: OpenSSL asks
    the context that a handshake has come to."""
    names = ServerNames()
    for index, pair in enumerate(settings.certificates, start=1):
        try:
            context = load_context(msgspec.structs.replace(settings, certificate=pair.certificate, key=pair.key), trusted)
            names.add(dns_names(pair.certificate), context)
        except StartError as error:
            raise StartError(f"tls.certificates: section {index}: {error}") from None
    return names


def choose_by_name(context: ssl.SSLContext, find: Callable[[str | None], ssl.SSLContext | None]) -> None:
    """Have handshakes that begin with the context go on with the one found for the server name that they ask for, if there is one."""

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        found = find(name)
        if found is not None:
            connection.context = found

    context.sni_callback = choose


class Certificates:
    """The context in force. ``check`` looks for changed files and belongs on a tick of a second; ``trusted`` tells the authorities that are
    registered now, which is asked at each handshake."""

    def __init__(self, settings: TlsSettings, trusted: Callable[[], str] = str) -> None:
        self._settings = settings
        self._trusted = trusted
        self._seen = self._fingerprint()
        self._complaint = ""
        self._loaded = trusted()
        self._context = load_context(settings, self._loaded)
        self._names = load_named(settings, self._loaded)
        self._take()
        self._warn_of_readers()

    def _take(self) -> None:
        if self._names:
            choose_by_name(self._context, self._names.find)

    @property
    def context(self) -> ssl.SSLContext:
        if self._trusted() != self._loaded:
            self._load()
        return self._context

    def for_name(self, name: str | None) -> ssl.SSLContext:
        """The context for a handshake that asks for a server name, or for none."""
        context = self.context
        return self._names.find(name) or context

    def check(self) -> None:
        """Take new files into force. A pair that doesn't load is tried again each time, since one of two files may still be on its way."""
        fingerprint = self._fingerprint()
        if fingerprint == self._seen and not self._complaint:
            return
        self._seen = fingerprint  # taken before loading: what changes during it is loaded by the next check
        if self._load():
            _log.info("certificate loaded file=%s", self._settings.certificate)
            self._warn_of_readers()

    def _load(self) -> bool:
        self._loaded = self._trusted()
        try:
            context, names = load_context(self._settings, self._loaded), load_named(self._settings, self._loaded)
        except StartError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.warning("certificate kept, the new one doesn't load reason=%s", error)
            return False
        self._context, self._names, self._complaint = context, names, ""
        self._take()
        return True

    def _fingerprint(self) -> Fingerprint:
        paths = [getattr(self._settings, name) for name in FILES]
        paths += [path for pair in self._settings.certificates for path in (pair.certificate, pair.key)]
        return tuple(file_state(path) for path in paths if path is not None)

    def _warn_of_readers(self) -> None:
        for key in (self._settings.key, *(pair.key for pair in self._settings.certificates)):
            with contextlib.suppress(OSError):  # gone again: the next check says so
                mode = key.stat().st_mode if key is not None else 0
                if mode & OTHERS:
                    _log.warning("private key open to others file=%s mode=%o; chmod 600 it", key, mode & 0o777)
