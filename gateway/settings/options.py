"""The table of options: every setting's name, kind, flag and help. Defaults are those of the structs in schemas.

A name such as `offline.pace` is a key in the section `[offline]` of the file and SLUICEWAY_OFFLINE_PACE in the environment.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.settings.kinds import (
    ADDRESS,
    CERTIFICATES,
    DATABASE,
    PATH,
    PROXIES,
    REFERENCE,
    RULES,
    SWITCH,
    Kind,
    choice,
    number,
    seconds,
    several,
    size,
    text,
)
from schemas.limits import APSARAMQ_LIMITS, KIB, MIB, Limits
from schemas.settings import DAY, ROLES, Settings

ENVIRONMENT_PREFIX: Final = "SLUICEWAY_"

MANY: Final = 2**40
"""Above every sensible count or size, far below what arithmetic or a database column can't hold."""

YEARS: Final = 100 * 365 * DAY


class Option(msgspec.Struct, frozen=True):
    name: str
    kind: Kind
    help: str
    flag: str = ""

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace(".", "_")


_NAMES = several(text(r"[^/+#\x00]{1,255}", "names of parent topics, without /, + and #"))

_GENERAL: Final = (
    Option("data", PATH, "folder of the log, the database, keys and credentials", "--data"),
    Option("mqtt", several(ADDRESS), "listen for MQTT over TCP", "--mqtt"),
    Option("mqtts", several(ADDRESS), "listen for MQTT over TLS", "--mqtts"),
    Option("ws", several(ADDRESS), "listen for MQTT over WebSocket", "--ws"),
    Option("wss", several(ADDRESS), "listen for MQTT over WebSocket with TLS", "--wss"),
    Option("http", ADDRESS, "listen for HTTP: metrics, health, API", "--http"),
    Option("anonymous", SWITCH, "admit clients without a login; all MQTT listeners must be on loopback", "--anonymous"),
    Option("preset", choice("standard", "apsaramq"), "whose rules and limits apply", "--preset"),
    Option("allow_plaintext_login", SWITCH, "take logins without TLS from other machines", "--allow-plaintext-login"),
    Option(
        "instance_id",
        text(r"[A-Za-z0-9_-]{1,64}|", "1 to 64 letters, digits, - and _"),
        "instance id to serve instead of the one made at first start",
    ),
    Option("access", RULES, "who may publish and subscribe where: sections [[access]] of principal, action, filter, effect"),
    Option("proxy", PROXIES, "listeners behind proxies that send a PROXY header: sections [[proxy]] of listener and networks"),
    Option("tls.certificate", PATH, "PEM file of the certificate chain", "--tls-certificate"),
    Option("tls.key", PATH, "PEM file of the certificate's key", "--tls-key"),
    Option("tls.client_ca", PATH, "PEM file of the authorities whose client certificates are demanded", "--tls-client-ca"),
    Option("tls.client_crl", PATH, "PEM file of revocation lists: certificates of an authority without a list in it are refused"),
    Option("tls.require_client_certificate", SWITCH, "demand a certificate of a registered authority from every client over TLS"),
    Option("tls.certificates", CERTIFICATES, "certificates by server name: sections [[tls.certificates]] of certificate and key"),
    Option("tls.http", SWITCH, "serve HTTP over TLS with this certificate, HTTPS, and not in clear text", "--tls-http"),
    Option("offline.pace", choice("acknowledged", "batches"), "how stored messages come to a client that returns"),
    Option("p2p.enabled", SWITCH, "deliver <parent>/p2p/<client id> to that client alone"),
    Option("p2p.parents", _NAMES, "parent topics under which P2P holds; empty for all"),
    Option("keys.seal_file", PATH, "key file that seals secrets in the database; best outside the data folder"),
    Option("jwt.keys", PATH, "file of public keys, JWKS or PEM: a password may be a JWT that one of them signed"),
    Option("jwt.issuer", text(r".{0,256}", "text of at most 256 characters"), "iss that a JWT must have; empty for any"),
    Option("jwt.audience", text(r".{0,256}", "text of at most 256 characters"), "aud that a JWT must have; empty for any"),
    Option("log.kind", choice("embedded", "kafka", "rocketmq"), "where the log is: files of this machine, Kafka, or RocketMQ"),
    Option("log.connection", text(r"[A-Za-z0-9_-]{0,64}", "the name of a [connections.NAME] section"), "the Kafka or RocketMQ that has the log"),
    Option("log.durability", choice("checked", "as configured"), "checked: refuse topics and brokers that could lose what was acknowledged"),
    Option("log.shards", number(1, 1024), "partitions or queues of each topic of the log; the order of messages follows, so it stays what it is"),
    Option("log.replication", number(1, 32), "replicas of topics of the log that are missing and made (Kafka)"),
    Option("log.prefix", text(r"[A-Za-z0-9._-]{1,200}", "1 to 200 letters, digits, ., - and _"), "in front of the names of the log's topics"),
    Option("log.segment_bytes", size(MIB, 64 * 1024 * MIB), "a new file of the log is begun past this size"),
    Option("log.segment_age", seconds(1, 30 * DAY), "a new file of the log is begun past this age"),
    Option("log.retention_bytes", size(MIB, MANY * KIB), "oldest files that nobody needs go past this size of the log"),
    Option("log.retention_age", seconds(1, YEARS), "files that nobody needs go past this age"),
    Option("store.url", DATABASE, "keep state in PostgreSQL instead of the data folder: postgresql://user@host:5432/database"),
    Option("store.password_file", PATH, "file that holds the database's password and nothing else; without it PGPASSWORD is heeded"),
    Option("logging.level", choice("debug", "info", "warning", "error"), "least important line to log", "--log-level"),
    Option("logging.format", choice("text", "json"), "form of log lines on standard error", "--log-format"),
    Option("trace.enabled", SWITCH, "record what happens to clients and messages, to be asked for afterwards"),
    Option("trace.sample", number(1, 1_000_000), "trace one message in so many; connects and closes are traced all"),
    Option("trace.retention_bytes", size(16 * MIB, MANY * KIB), "oldest events go past this size of the trace"),
    Option("trace.retention_age", seconds(60, YEARS), "events go past this age"),
    Option("node.id", text(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 letters, digits, ., - and _"), "stable name of this node"),
    Option("node.many", SWITCH, "be one of many nodes that share a log on Kafka or RocketMQ and a store on PostgreSQL; set it on all of them"),
    Option("node.roles", several(choice(*ROLES)), "what this one of many nodes does for all: take clients, run rules, answer the API, lead"),
    Option("node.workers", number(1, 64), "processes that share the MQTT listeners, each one of many nodes", "--workers"),
    Option("node.advertise", REFERENCE, "where clients reach this one of many nodes: others that stop send theirs there"),
    Option("node.moved_to", REFERENCE, "where all MQTT 5 clients of this node are told to go for good (0x9D)"),
    Option("compatibility.not_authorized_code", number(0x80, 0xFF), "SUBACK's code for a refused filter in MQTT 5; some test suites want 0x80"),
)

_SIZE = size(1, MANY)
_COUNT = number(1, MANY)
_WAIT = seconds(0.01, DAY)
_RATE = number(0, MANY)

_LIMITS: Final = (
    Option("limits.packet", size(1 * KIB, 268_435_455), "largest MQTT packet"),
    Option("limits.topic_levels", number(1, 65_535), "levels of a topic"),
    Option("limits.topic_bytes", size(1, 65_535), "length of a topic"),
    Option("limits.client_id_bytes", size(23, 65_535), "length of a client id"),
    Option("limits.subscriptions_per_client", _COUNT, "subscriptions of one client"),
    Option("limits.filters_per_subscribe", _COUNT, "filters in one SUBSCRIBE"),
    Option("limits.wildcards_per_parent", number(0, MANY), "different filters with wildcards under one parent topic; 0 for no limit"),
    Option("limits.window", number(1, 65_535), "deliveries in flight to a client that names no receive maximum"),
    Option("limits.receive_maximum", number(1, 65_535), "publishes in flight from a client, and unreleased QoS 2 ids"),
    Option("limits.topic_alias_maximum", number(0, 65_535), "topic aliases, each way"),
    Option("limits.user_properties", number(0, MANY), "user properties of a packet"),
    Option("limits.properties_bytes", _SIZE, "size of a packet's properties"),
    Option("limits.keep_alive", seconds(0, 65_535, whole=True), "longest keep-alive granted; 0 grants any"),
    Option("limits.session_expiry", seconds(0, 0xFFFFFFFF, whole=True), "longest session expiry granted"),
    Option("limits.offline_messages", _COUNT, "stored messages of one client"),
    Option("limits.offline_messages_total", _COUNT, "stored messages in all"),
    Option("limits.offline_age", seconds(1, YEARS, whole=True), "age past which a stored message goes"),
    Option("limits.mailbox_messages", _COUNT, "P2P messages kept for a client id that has no session"),
    Option("limits.connect_timeout", _WAIT, "time in which CONNECT has to be complete"),
    Option("limits.connect_bytes", size(64, 268_435_455), "bytes that may arrive before CONNECT is complete"),
    Option("limits.connections", _COUNT, "connections at a time"),
    Option("limits.sessions", _COUNT, "sessions kept"),
    Option("limits.retained_messages", _COUNT, "retained messages kept"),
    Option("limits.groups", _COUNT, "group ids"),
    Option("limits.parent_topics", _COUNT, "parent topics that were created"),
    Option("limits.login_failures_address", number(0, MANY), "failed logins a minute from one address; 0 for no limit"),
    Option("limits.login_failures_key", number(0, MANY), "failed logins a minute with one key or identity; 0 for no limit"),
    Option("limits.connect_rate", _RATE, "CONNECTs a second on one listener; 0 for no limit"),
    Option("limits.connect_rate_address", _RATE, "CONNECTs a second from one address; 0 for no limit"),
    Option("limits.connections_per_address", number(0, MANY), "connections of one address; 0 for no limit"),
    Option("limits.connections_per_principal", number(0, MANY), "connections of one access key, identity or other principal; 0 for no limit"),
    Option("limits.message_rate", _RATE, "publishes a second of a connection, which is read more slowly past it; 0 for no limit"),
    Option("limits.byte_rate", _RATE, "bytes a second of a connection, which is read more slowly past it; 0 for no limit"),
    Option("limits.message_rate_principal", _RATE, "publishes a second of all connections of a principal; 0 for no limit"),
    Option("limits.byte_rate_principal", _RATE, "bytes a second of all connections of a principal; 0 for no limit"),
    Option("limits.queue_messages", _COUNT, "deliveries that wait in memory for one client"),
    Option("limits.queue_bytes_node", _SIZE, "bytes of records that all queues may keep in memory"),
    Option("limits.unacknowledged_bytes", _SIZE, "a connection's publishes that are not durable yet"),
    Option("limits.pending_records", _COUNT, "records on their way to the disk before publishers are slowed"),
    Option("limits.pending_bytes", _SIZE, "bytes on their way to the disk before publishers are slowed"),
    Option("limits.routing_lag", _COUNT, "records that routing may be behind before publishers are slowed"),
    Option("limits.log_wait", _WAIT, "how long a log that can't write is waited for before clients are sent away"),
    Option("limits.settle_within", _WAIT, "unacknowledged deliveries are written to the inbox after this time"),
    Option("limits.ack_timeout", _WAIT, "unacknowledged deliveries count as offline messages after this time"),
    Option("limits.trace_rate", _COUNT, "events of messages a second that are traced; past it every second message is, every fourth and so on"),
    Option("limits.trace_buffer", _COUNT, "events of the trace that wait for their file"),
    Option("limits.write_buffer", _SIZE, "bytes a socket may have outstanding before deliveries queue"),
)

OPTIONS: Final = {option.name: option for option in _GENERAL + _LIMITS}

SECTIONS: Final = frozenset(name.partition(".")[0] for name in OPTIONS if "." in name)


def _changed_limits(limits: Limits) -> dict[str, Any]:
    plain = Limits()
    names = limits.__struct_fields__
    return {f"limits.{name}": getattr(limits, name) for name in names if getattr(limits, name) != getattr(plain, name)}


PRESETS: Final[dict[str, dict[str, Any]]] = {
    "standard": {},
    "apsaramq": {"offline.pace": "batches", **_changed_limits(APSARAMQ_LIMITS)},
}
"""What a preset puts in the place of defaults."""


def default(name: str) -> Any:
    """An option's default: what the struct says."""
    value: Any = Settings()
    for part in name.split("."):
        value = getattr(value, part)
    return value
