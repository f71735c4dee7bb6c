"""The settings in force: what flags, environment, file and defaults come to. Values here are valid; nobody checks them again.

Defaults stand here and in limits.py. Names, help texts and the checks of what users write are one table in gateway/settings/options.py.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from schemas.connections import ConnectionSettings
from schemas.identities import AccessRule
from schemas.limits import MIB, Limits

Pace = Literal["acknowledged", "batches"]
Preset = Literal["standard", "apsaramq"]
LogKind = Literal["embedded", "kafka", "rocketmq"]
Durability = Literal["checked", "as configured"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Role = Literal["gateway", "bridge", "api", "router"]
ROLES: tuple[Role, ...] = ("gateway", "bridge", "api", "router")
"""What one node of many may do for all: take clients, run rules, answer the API, lead."""

HOUR = 3600
DAY = 24 * HOUR


class Address(NamedTuple):
    """Where to listen; port 0 takes a free one. An IPv6 host has no brackets here and gets them in ``str``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. Names other than localhost are not looked up and count as reachable."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False


class NamedCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files of a certificate for clients that ask for one of its DNS names."""

    certificate: Path
    key: Path


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files. ``certificate`` and ``key`` are set wherever there is a listener with TLS. ``client_ca``: clients must show a certificate, of it or
    of a registered authority; ``require_client_certificate``: of a registered one, where it is not set. ``client_crl``: revocation lists, of
    each authority whose certificates are to be taken. ``certificates``: others, by the server name that a client asks for.
    """

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    client_crl: Path | None = None
    require_client_certificate: bool = False
    certificates: tuple[NamedCertificate, ...] = ()
    http: bool = False
    """HTTP over TLS, with this certificate; no client certificate is asked for there."""


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    """``listener``: one of the MQTT listeners' addresses. ``networks``: where its proxies are; who comes from there must send a PROXY header."""

    listener: Address
    networks: tuple[IPv4Network | IPv6Network, ...]


class OfflineSettings(msgspec.Struct, frozen=True, kw_only=True):
    pace: Pace = "acknowledged"


class P2PSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``parents`` empty: under every parent topic."""

    enabled: bool = True
    parents: tuple[str, ...] = ()


class KeySettings(msgspec.Struct, frozen=True, kw_only=True):
    """``seal_file`` None: ``seal.key`` in the data folder."""

    seal_file: Path | None = None


class JwtSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``keys`` None: no login by JWT. Empty ``issuer`` or ``audience``: any."""

    keys: Path | None = None
    issuer: str = ""
    audience: str = ""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and seconds. The embedded log's retention never removes a segment that a reader or an inbox needs; one elsewhere forgets
    regardless: Kafka by these two, RocketMQ by its brokers' fileReservedTime.

    ``connection``, ``durability``, ``shards`` and ``prefix`` are for a log on Kafka or RocketMQ, ``replication`` is for Kafka's.
    """

    kind: LogKind = "embedded"
    connection: str = ""
    durability: Durability = "checked"
    shards: int = 6
    replication: int = 3
    prefix: str = "sluiceway-"
    segment_bytes: int = 256 * MIB
    segment_age: float = HOUR
    retention_bytes: int = 8192 * MIB
    retention_age: float = DAY


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``url`` empty: SQLite, in the data folder. The URL is libpq's, without a password; ``password_file`` holds that and nothing else."""

    url: str = ""
    password_file: Path | None = None


class LoggingSettings(msgspec.Struct, frozen=True, kw_only=True):
    level: LogLevel = "info"
    format: LogFormat = "text"


class TraceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One message in ``sample`` is traced, all events of devices are. Bytes and seconds: past them the oldest events go."""

    enabled: bool = True
    sample: int = 1
    retention_bytes: int = 512 * MIB
    retention_age: float = 3 * DAY


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``many``: other nodes share this one's log and store. ``advertise``: where clients reach this one, for others to send theirs to;
    ``moved_to``: where this one's clients shall go for good. ``workers``: processes that share its listeners, each a node of its own.
    """

    id: str = "node-1"
    many: bool = False
    roles: tuple[Role, ...] = ROLES
    workers: int = 1
    advertise: str = ""
    moved_to: str = ""


class CompatibilitySettings(msgspec.Struct, frozen=True, kw_only=True):
    """For clients and test suites that expect other answers than ours. ``not_authorized_code`` is what SUBACK says to MQTT 5."""

    not_authorized_code: int = 0x87


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``instance_id`` empty: the one made at the first start."""

    data: Path = Path("data")
    mqtt: tuple[Address, ...] = (Address("127.0.0.1", 1883),)
    mqtts: tuple[Address, ...] = ()
    ws: tuple[Address, ...] = ()
    wss: tuple[Address, ...] = ()
    http: Address = Address("127.0.0.1", 8080)
    anonymous: bool = False
    preset: Preset = "standard"
    allow_plaintext_login: bool = False
    instance_id: str = ""
    access: tuple[AccessRule, ...] = ()
    proxy: tuple[ProxySettings, ...] = ()
    tls: TlsSettings = TlsSettings()
    offline: OfflineSettings = OfflineSettings()
    p2p: P2PSettings = P2PSettings()
    keys: KeySettings = KeySettings()
    jwt: JwtSettings = JwtSettings()
    log: LogSettings = LogSettings()
    store: StoreSettings = StoreSettings()
    logging: LoggingSettings = LoggingSettings()
    trace: TraceSettings = TraceSettings()
    node: NodeSettings = NodeSettings()
    compatibility: CompatibilitySettings = CompatibilitySettings()
    limits: Limits = Limits()
    connections: tuple[ConnectionSettings, ...] = ()

    @property
    def seal_file(self) -> Path:
        """The key file that seals secrets."""
        return self.keys.seal_file or self.data / "seal.key"
