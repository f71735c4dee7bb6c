"""Any order of what clients, networks and crashes do, against a small model of what sessions are owed.

What must hold of every trace: what was acknowledged reaches every session that was subscribed and kept when it was published,
in order per publisher and QoS; QoS 2 as one message; nothing that was not published to a matching topic; never more in
flight than the window. SLUICEWAY_MODEL_RUNS and SLUICEWAY_MODEL_STEPS ask for more.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.protocol.packets import Ack, Connack, Disconnect, PacketType, Publish
from gateway.protocol.properties import Properties
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from tests.support.party import Party
from tests.support.testbed import Testbed

RUNS = int(os.environ.get("SLUICEWAY_MODEL_RUNS", "200"))
STEPS = int(os.environ.get("SLUICEWAY_MODEL_STEPS", "40"))
CLIENTS = ("a", "b", "c")
FILTERS = ("t/1", "t/+", "t/#")
TOPICS = ("t/1", "t/2")
WINDOW = 3


def matches(topic_filter: str, topic: str) -> bool:
    return topic_filter != "t/1" or topic == "t/1"


@dataclass
class Message:
    number: int
    topic: str
    qos: int
    sender: str
    packet_id: int
    acknowledged: bool = False


@dataclass
class Life:
    """One session: from its beginning to its end. ``owed``: messages that it must get in the end; ``may``: that it may get."""

    kept: bool
    ghost: bool = False
    """It was ended, and a crash came before that was durable: it may be there or not, and nothing is owed."""
    subscriptions: dict[str, int] = field(default_factory=dict)
    owed: dict[int, int] = field(default_factory=dict)
    """By message, the QoS at which it is owed."""
    may: set[int] = field(default_factory=set)
    got: list[tuple[int, int]] = field(default_factory=list)
    """First copies: message and QoS, in order."""
    settled: set[int] = field(default_factory=set)
    """Messages that the client has acknowledged; until then it must get them again."""
    completed: set[int] = field(default_factory=set)
    carried: dict[int, int] = field(default_factory=dict)
    """By packet id of this connection, the message."""
    in_hand: dict[int, int] = field(default_factory=dict)
    """QoS 2: packet ids that the client knows, with the message."""
    unsettled: dict[int, int] = field(default_factory=dict)
    """Packet ids of this connection that the client has not acknowledged to the end, with their QoS."""


class Gateway(RuleBasedStateMachine):
    shards = 1

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.bed = Testbed(Path(self._folder.name), limits=Limits(window=WINDOW), shards=self.shards)
        self.parties: dict[str, Party] = {}
        self.lives: dict[str, Life] = {}
        self.messages: dict[int, Message] = {}
        self.pending: dict[str, list[Message]] = {client: [] for client in CLIENTS}
        """Publishes that this connection has sent and that are not acknowledged."""
        self.last_id = dict.fromkeys(CLIENTS, 0)
        self.ending: dict[str, Life] = {}
        """Sessions that ended a moment ago."""

    def teardown(self) -> None:
        """Let everything arrive, with clients that answer; then nothing may be owed."""
        self.bed.log.release_held()
        for client in CLIENTS:
            life = self.lives.get(client)
            if life is None or not life.kept:
                continue
            self._connect(client, 5, clean=False, kept=True)
            for _ in range(60):
                self.bed.advance(0.3)
                if not self._answer(client, 1_000):
                    break
            self._look(client)
            missing = [number for number in life.owed if number not in life.settled]
            assert not missing, (client, [self.messages[number] for number in missing], life)
        self.bed.close()
        self._folder.cleanup()

    @initialize()
    def begin(self) -> None:
        """One that publishes and one that is subscribed, both kept: what most traces need."""
        for client in ("a", "b"):
            self._connect(client, 5, clean=False, kept=True)
        self.parties["b"].subscribe("t/#", qos=2)
        self.lives["b"].subscriptions["t/#"] = 2

    # What clients do

    @rule(client=st.sampled_from(CLIENTS), version=st.sampled_from((4, 5)), clean=st.booleans(), kept=st.booleans())
    def connect(self, client: str, version: int, clean: bool, kept: bool) -> None:
        if version == 4:
            clean = not kept
        self._connect(client, version, clean=clean, kept=kept)

    def _connect(self, client: str, version: int, *, clean: bool, kept: bool) -> None:
        self._lose(client)
        before = self.lives.get(client)
        party = self.bed.dial(version, auto_ack=False)
        properties = Properties(session_expiry_interval=10_000 if kept else None) if version == 5 else None
        party.connect(client, clean_start=clean, properties=properties)
        if self.bed.log.held:
            self.bed.log.release_held()
            self.bed.settle()
            party.connack = party.connack or next(packet for packet in party.inbox if isinstance(packet, Connack))
            party.inbox = [packet for packet in party.inbox if not isinstance(packet, Connack)]
        assert party.connack is not None
        assert party.connack.reason_code == 0
        self.parties[client] = party
        resumed = before is not None and before.kept and not clean
        if before is not None and before.ghost:
            resumed = party.connack.session_present
        assert party.connack.session_present == resumed, (client, before)
        if resumed:
            assert before is not None
            before.kept = kept
            before.ghost = False
            before.unsettled = {}
        else:
            self._ended(client)
            self.lives[client] = Life(kept)
        self._send_again(client, resumed=resumed)
        self._look(client)

    def _send_again(self, client: str, *, resumed: bool) -> None:
        """What was not acknowledged, as a client does whose session goes on [MQTT-4.4.0-1]."""
        self.pending[client] = [message for message in self.pending[client] if resumed and not message.acknowledged]
        for message in self.pending[client]:
            self._may_match(message)
            self.parties[client].publish(message.topic, b"%d" % message.number, message.qos, packet_id=message.packet_id, dup=True)

    @precondition(lambda self: self.parties)
    @rule(data=st.data(), topic_filter=st.sampled_from(FILTERS), qos=st.integers(0, 2))
    def subscribe(self, data: st.DataObject, topic_filter: str, qos: int) -> None:
        client = data.draw(st.sampled_from(sorted(self.parties)))
        self._flush_log()
        self._note_deliveries()
        assert self.parties[client].subscribe(topic_filter, qos=qos) == (qos,)
        self.lives[client].subscriptions[topic_filter] = qos

    @precondition(lambda self: self.parties)
    @rule(data=st.data(), topic_filter=st.sampled_from(FILTERS))
    def unsubscribe(self, data: st.DataObject, topic_filter: str) -> None:
        client = data.draw(st.sampled_from(sorted(self.parties)))
        self._flush_log()
        self.parties[client].unsubscribe(topic_filter)
        self.lives[client].subscriptions.pop(topic_filter, None)

    @precondition(lambda self: self.parties)
    @rule(data=st.data(), topic=st.sampled_from(TOPICS), qos=st.integers(0, 2), count=st.integers(1, 4))
    def publish(self, data: st.DataObject, topic: str, qos: int, count: int) -> None:
        client = data.draw(st.sampled_from(sorted(self.parties)))
        for _ in range(count):
            number = len(self.messages)
            self.last_id[client] = self.last_id[client] % 60_000 + 1
            message = Message(number, topic, qos, client, self.last_id[client] if qos else 0)
            self.messages[number] = message
            self._may_match(message)
            self.parties[client].publish(topic, b"%d" % number, qos, packet_id=message.packet_id)
            if qos:
                self.pending[client].append(message)
        self._look_all()

    def _may_match(self, message: Message) -> None:
        for life in self.lives.values():
            if any(matches(topic_filter, message.topic) for topic_filter in life.subscriptions):
                life.may.add(message.number)

    @precondition(lambda self: self.parties and not self.bed.log.held)
    @rule()
    def log_stalls(self) -> None:
        self.bed.log.held = True

    @precondition(lambda self: self.bed.log.held)
    @rule()
    def log_goes_on(self) -> None:
        self._flush_log()

    @precondition(lambda self: self.parties)
    @rule(data=st.data(), count=st.integers(1, 5))
    def acknowledge(self, data: st.DataObject, count: int) -> None:
        self._answer(data.draw(st.sampled_from(sorted(self.parties))), count)

    @precondition(lambda self: self.parties)
    @rule()
    def everybody_answers(self) -> None:
        self._flush_log()
        for client in list(self.parties):
            for _ in range(4):
                self._answer(client, 1_000)

    @precondition(lambda self: self.parties)
    @rule(data=st.data(), end_session=st.booleans())
    def disconnect(self, data: st.DataObject, end_session: bool) -> None:
        client = data.draw(st.sampled_from(sorted(self.parties)))
        party = self.parties[client]
        self._look(client)
        if end_session and party.version == 5:
            party.send(Disconnect(reason_code=ReasonCode.SUCCESS, properties=Properties(session_expiry_interval=0)))
            self.lives[client].kept = False
        else:
            party.disconnect()
        self._lose(client)

    @precondition(lambda self: self.parties)
    @rule(data=st.data())
    def network_goes(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(sorted(self.parties)))
        self._look(client)
        self.parties[client].drop()
        self._lose(client)

    @precondition(lambda self: self.parties)
    @rule(seconds=st.sampled_from((0.06, 0.25, 0.6, 2.0)))
    def time_passes(self, seconds: float) -> None:
        self.bed.advance(seconds)
        self.ending.clear()
        self._look_all()

    @precondition(lambda self: self.parties)
    @rule(settled=st.booleans(), back=st.booleans())
    def crash(self, settled: bool, back: bool) -> None:
        if settled:
            self.bed.settle()
        self._look_all(settle=False)
        self.bed.crash()
        ending, self.ending = self.ending, {}
        for client in list(self.parties):
            self._lose(client, crashed=True)
        for client, life in ending.items():
            if not self.lives[client].kept:
                life.ghost = life.kept = True
                life.owed = {}
                self.lives[client] = life
        self.ending.clear()
        for client in [client for client in CLIENTS if back and client in self.lives and self.lives[client].kept]:
            self._connect(client, 5, clean=False, kept=True)

    # What the model learns

    def _flush_log(self) -> None:
        self.bed.log.release_held()
        self._look_all()

    def _lose(self, client: str, *, crashed: bool = False) -> None:
        party = self.parties.pop(client, None)
        life = self.lives.get(client)
        if party is not None and not crashed and not party.closed:
            party.drop()
        if life is not None and not life.kept:
            self._ended(client)
            self.lives[client] = Life(kept=False)

    def _ended(self, client: str) -> None:
        life = self.lives.get(client)
        if life is not None:
            self.ending[client] = life

    def _note_deliveries(self) -> None:
        for client in list(self.parties):
            self._look(client)

    def _look_all(self, *, settle: bool = True) -> None:
        if settle:
            self.bed.settle()
        for client in list(self.parties):
            self._look(client, settle=settle)

    def _look(self, client: str, *, settle: bool = True) -> None:
        """Take in what has come to a client."""
        if settle:
            self.bed.settle()
        party = self.parties[client]
        packets, party.inbox = party.inbox, []
        for packet in packets:
            if isinstance(packet, Publish):
                self._delivered(self.lives[client], packet)
            elif isinstance(packet, Ack) and packet.type in (PacketType.PUBACK, PacketType.PUBREC):
                self._acknowledged(client, packet)
            elif isinstance(packet, Ack) and packet.type == PacketType.PUBREL:
                self.lives[client].unsettled[packet.packet_id] = 3
        assert not party.closed, packets

    def _acknowledged(self, client: str, ack: Ack) -> None:
        message = next(message for message in self.pending[client] if message.packet_id == ack.packet_id and not message.acknowledged)
        expected = next(m for m in self.pending[client] if m.qos == message.qos and not m.acknowledged)
        assert message is expected, "acknowledgements out of order"
        message.acknowledged = True
        for life in self.lives.values():
            granted = [qos for f, qos in life.subscriptions.items() if matches(f, message.topic)]
            if life.kept and not life.ghost and granted and min(max(granted), message.qos) and message.number in life.may:
                life.owed.setdefault(message.number, min(max(granted), message.qos))
        if message.qos == 2:
            self.parties[client].ack(PacketType.PUBREL, message.packet_id)
            self.bed.settle()

    def _delivered(self, life: Life, packet: Publish) -> None:
        number = int(packet.payload)
        message = self.messages[number]
        life.carried[packet.packet_id] = number
        assert number in life.may, ("not asked for", message, life)
        assert packet.topic == message.topic
        assert packet.qos <= message.qos
        if packet.qos == 0:
            return
        if packet.qos == 2:
            if packet.packet_id in life.in_hand and life.in_hand[packet.packet_id] == number:
                life.unsettled[packet.packet_id] = 2
                return
            assert number not in life.completed, ("QoS 2 came twice", message, life)
            life.in_hand[packet.packet_id] = number
            life.completed.add(number)
        assert packet.packet_id not in life.unsettled, "a packet id in use was used again"
        life.unsettled[packet.packet_id] = packet.qos
        if (number, packet.qos) not in life.got:
            alike = [self.messages[n] for n, qos in life.got if qos == packet.qos]
            earlier = [m.number for m in alike if (m.sender, m.topic, m.qos) == (message.sender, message.topic, message.qos)]
            assert not earlier or earlier[-1] < number, ("out of order", message, life)
            life.got.append((number, packet.qos))

    def _answer(self, client: str, count: int) -> int:
        """Acknowledge the oldest deliveries, one step each; how many there were."""
        party, life = self.parties[client], self.lives[client]
        self._look(client)
        steps = list(life.unsettled.items())[:count]
        for number, step in steps:
            if step == 1:
                del life.unsettled[number]
                life.settled.add(life.carried[number])
                party.ack(PacketType.PUBACK, number)
            elif step == 2:
                life.unsettled[number] = 4
                life.settled.add(life.carried[number])
                party.ack(PacketType.PUBREC, number)
            elif step == 3:
                del life.unsettled[number]
                life.in_hand.pop(number, None)
                party.ack(PacketType.PUBCOMP, number)
        self._look(client)
        return len(steps)

    @invariant()
    def the_window_holds(self) -> None:
        for client, party in self.parties.items():
            session = self.bed.session(client)
            assert session is not None
            assert session.connection is party.connection
            assert len([step for step in self.lives[client].unsettled.values() if step in (1, 2)]) <= WINDOW

    @invariant()
    def nothing_is_pinned(self) -> None:
        queued = sum(len(d.record.payload) for s in self.bed.node.registry.sessions.values() for d in s.queue or ())
        assert self.bed.node.queued_bytes == queued


TestGateway = pytest.mark.slow(Gateway.TestCase)
TestGateway.settings = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class ShardedGateway(Gateway):
    """Over a log whose shards come in any order: what is promised is promised per publisher."""

    shards = 4


TestShardedGateway = pytest.mark.slow(ShardedGateway.TestCase)
TestShardedGateway.settings = TestGateway.settings
