"""All that is registered about who may do what, opened together from the store. Holds, decides nothing."""

from __future__ import annotations

import uuid

from gateway.auth.access import Access
from gateway.auth.bearers import Bearers
from gateway.auth.client_certificates import ClientCertificates
from gateway.auth.devices import Devices
from gateway.auth.identities import Identities
from gateway.auth.keys import KeyRing
from gateway.auth.login import Authenticator
from gateway.auth.policies import Policies
from gateway.auth.resources import Resources
from gateway.auth.tags import Tags
from gateway.auth.tokens import Mint, PropertyStore, open_mint
from gateway.auth.web_tokens import WebTokens
from schemas.settings import Settings


class Registers:
    """Made by ``open_registers``."""

    def __init__(
        self,
        keyring: KeyRing,
        resources: Resources,
        policies: Policies,
        devices: Devices,
        identities: Identities,
        certificates: ClientCertificates,
        tags: Tags,
        mint: Mint,
    ) -> None:
        self.keyring = keyring
        self.resources = resources
        self.policies = policies
        self.devices = devices
        self.identities = identities
        self.certificates = certificates
        self.tags = tags
        self.mint = mint
        self.web_tokens: WebTokens | None = None
        self.bearers: Bearers

    async def load(self) -> None:
        """Everything as the store has it."""
        of_access = (self.keyring, self.resources, self.policies, self.devices, self.identities, self.certificates, self.bearers)
        for register in (*of_access, self.tags, self.mint):
            await register.load()

    def access(self) -> Access:
        """The one function that decides, over these registers."""
        access = Access(self.keyring, policies=self.policies, resources=self.resources)
        access.knows("device", self.devices.is_known, lambda: self.devices.version)
        access.knows("user", self.identities.is_known, lambda: self.identities.version)
        access.knows("client", self.identities.is_known, lambda: self.identities.version)
        access.knows("cert", self.certificates.is_known, lambda: self.certificates.version)
        access.knows("bearer", self.bearers.is_known, lambda: self.bearers.version)
        access.knows("jwt", lambda _: self.web_tokens is not None, lambda: 0)
        return access

    def authenticator(self, settings: Settings) -> Authenticator:
        return Authenticator(
            self.keyring,
            anonymous=settings.anonymous,
            allow_plaintext_login=settings.allow_plaintext_login,
            mint=self.mint,
            devices=self.devices,
            identities=self.identities,
            certificates=self.certificates,
            other_certificates=settings.tls.client_ca is not None,
            web_tokens=self.web_tokens,
        )


async def open_registers(store: PropertyStore, keyring: KeyRing, settings: Settings) -> Registers:
    """Everything that the store holds of these, in memory."""
    limits = settings.limits
    resources = Resources(store, mandatory=settings.preset == "apsaramq", max_groups=limits.groups, max_topics=limits.parent_topics)
    policies = Policies(store, settings.access)
    devices, identities = Devices(store, keyring.seal), Identities(store, keyring.seal)
    tags, mint = Tags(store), await open_mint(store, keyring)
    certificates = ClientCertificates(store, str(uuid.UUID(bytes=mint.derive("registration code")[:16], version=4)))
    for register in (resources, policies, devices, identities, certificates, tags):
        await register.load()
    registers = Registers(keyring, resources, policies, devices, identities, certificates, tags, mint)
    registers.bearers = Bearers(store)
    await registers.bearers.load()
    if settings.jwt.keys is not None:
        registers.web_tokens = WebTokens.open(settings.jwt.keys, settings.jwt.issuer, settings.jwt.audience)
    return registers
