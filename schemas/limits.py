"""Every limit in one table: name, default in the preset ``standard``, in the preset ``apsaramq``, and why (design: backpressure and limits)."""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB
DAY_MS = 86_400_000


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits in force. Bytes unless the name says otherwise; times in seconds."""

    packet: int = MIB
    topic_levels: int = 128
    topic_bytes: int = 1024
    client_id_bytes: int = 256
    subscriptions_per_client: int = 1000
    filters_per_subscribe: int = 1000
    wildcards_per_parent: int = 0
    """Different filters with wildcards under one parent topic, of all clients; 0 for no limit."""
    window: int = 1000
    """Deliveries in flight to a client that names no receive maximum."""
    receive_maximum: int = 1000
    """Announced to clients; also the cap of unreleased inbound QoS 2 ids."""
    topic_alias_maximum: int = 64
    """Aliases a client may set, and how many we set at most towards a client."""
    user_properties: int = 64
    properties_bytes: int = 8 * KIB
    keep_alive: int = 600
    """The longest keep-alive granted; MQTT 5 clients that ask for more, or for none, are told this one. 0 grants any."""
    session_expiry: int = 0xFFFFFFFF
    offline_messages: int = 100_000
    offline_messages_total: int = 1_000_000
    offline_age: int = 3 * 86_400
    mailbox_messages: int = 100
    connect_timeout: float = 10.0
    connect_bytes: int = 8 * KIB
    """What may arrive before CONNECT is complete."""
    connections: int = 100_000
    sessions: int = 1_000_000
    retained_messages: int = 1_000_000
    groups: int = 10_000
    parent_topics: int = 10_000
    login_failures_address: int = 10
    """A minute, from one address that is not loopback; then none for a minute, right or wrong."""
    login_failures_key: int = 100
    """The same with one access key, device credential or identity, from anywhere."""
    connect_rate: int = 0
    """CONNECTs a second on one listener; 0 for no limit, here and in the seven that follow."""
    connect_rate_address: int = 0
    connections_per_address: int = 0
    connections_per_principal: int = 0
    message_rate: int = 0
    """Publishes a second of one connection; past it the connection is not read for a while."""
    byte_rate: int = 0
    message_rate_principal: int = 0
    byte_rate_principal: int = 0
    queue_messages: int = 100_000
    """References that wait in memory for one connected client."""
    queue_bytes_node: int = 256 * MIB
    """Bytes of records pinned by all queues together."""
    unacknowledged_bytes: int = 64 * KIB
    """A connection's publishes that are not durable yet; past it its socket is paused."""
    pending_records: int = 10_000
    pending_bytes: int = 16 * MIB
    routing_lag: int = 50_000
    log_wait: float = 60.0
    settle_within: float = 0.5
    ack_timeout: float = 5.0
    trace_rate: int = 5_000
    """Events of messages a second that are traced; past it every second message is, every fourth and so on."""
    trace_buffer: int = 20_000
    """Events of the trace that wait for their file."""
    write_buffer: int = 256 * KIB
    """Bytes that a socket may have outstanding before deliveries queue."""


APSARAMQ_LIMITS = Limits(packet=64 * KIB, topic_bytes=64, client_id_bytes=64, subscriptions_per_client=30, wildcards_per_parent=100)
