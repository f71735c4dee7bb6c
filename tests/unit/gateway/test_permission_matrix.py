"""Nine ways in and out, nine shapes of rules, allowed, denied and revoked later, on both versions: what happens is what an oracle says.

The oracle knows nothing of the code: it turns filters into regular expressions and tries them on all topics of a small world.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import NamedTuple

import httpx
import pytest

from gateway.api.routes import create_api
from gateway.auth.login import sign, signature_user_name
from gateway.services import Services
from schemas.identities import AccessRule
from schemas.records import PUBLISH_TOPIC, Flag, Kind, Record, Source
from tests.support.party import Party, will
from tests.support.testbed import Testbed

PATHS = ("publish", "will", "retained", "live", "offline", "shared", "p2p", "bridge", "api")
SHAPES = ("exact", "plus", "hash", "overlap", "share", "dollar", "own", "others", "none")
EFFECTS = ("allow", "deny", "revoked")
LEVELS = ("t", "a", "b", "p2p", "$dev", "other", "me", "you")


class Case(NamedTuple):
    """The topic of the message, what the reader subscribes to, and the filters of the rules."""

    topic: str
    subscriptions: tuple[str, ...]
    rules: tuple[str, ...]


def case(path: str, shape: str, me: str) -> Case:
    if path == "p2p":
        return p2p_case(shape, me)
    share = "$share/g/" if path == "shared" else ""
    plain = {
        "exact": Case("t/a", ("t/a",), ("t/a",)),
        "plus": Case("t/a", ("t/+",), ("t/+",)),
        "hash": Case("t/a/b", ("t/#",), ("t/#",)),
        "overlap": Case("t/a", ("t/a", "t/+"), ("t/#", "t/a")),
        "share": Case("t/a", ("$share/s/t/a",), ("t/a",)),
        "dollar": Case("$dev/a", ("$dev/#",), ("$dev/#",)),
        "own": Case(f"t/{me}/a", (f"t/{me}/#",), ("t/${client}/#",)),
        "others": Case("t/you/a", ("t/you/#",), ("t/${client}/#",)),
        "none": Case("t/a", ("t/a",), ("other/#",)),
    }[shape]
    wanted = tuple(s if s.startswith("$share") else share + s for s in plain.subscriptions)
    return plain._replace(subscriptions=wanted)


def p2p_case(shape: str, me: str) -> Case:
    mine = f"t/p2p/{me}"
    return {
        "exact": Case(mine, (), (mine,)),
        "plus": Case(mine, (), ("t/p2p/+",)),
        "hash": Case(mine, (), ("t/#",)),
        "overlap": Case(mine, (mine, "t/p2p/+"), ("t/#", mine)),
        "share": Case(mine, ("$share/s/t/p2p/+",), (mine,)),
        "dollar": Case(f"$dev/p2p/{me}", (), ("$dev/#",)),
        "own": Case(mine, (), ("t/p2p/${client}",)),
        "others": Case("t/p2p/you", ("t/p2p/you",), ("t/p2p/${client}",)),
        "none": Case(mine, (), ("other/#",)),
    }[shape]


# The oracle


def pattern(rule_filter: str, me: str) -> re.Pattern[str]:
    text = ""
    for index, level in enumerate(rule_filter.split("/")):
        if level == "#":
            text = "[^$].*|" if not index else text + "(/.*)?"
            break
        part = {"+": "[^/]*", "${client}": re.escape(me)}.get(level, re.escape(level))
        text += ("/" if index else "") + (r"(?!\$)" if not index and level == "+" else "") + part
    return re.compile(text)


def world(me: str) -> list[str]:
    levels = [me if level == "me" else level for level in LEVELS]
    return ["/".join(parts) for count in (1, 2, 3, 4) for parts in itertools.product(levels, repeat=count)]


class Oracle:
    """What rules of one effect come to for a key: denials against all that a key may, or an allow list.

    A key that speaks through the API has no client id: ``me`` is empty, a variable opens nothing and closes all that lies there.
    """

    def __init__(self, effect: str, rules: tuple[str, ...], me: str, topics: list[str]) -> None:
        self.allows = effect == "allow"
        if not me:
            rules = tuple(rule for rule in rules if "${" not in rule or not self.allows)
            rules = tuple(rule.partition("${client}")[0] + "#" if "${" in rule else rule for rule in rules)
        patterns = [pattern(rule, me) for rule in rules]
        self.each = [{topic for topic in topics if p.fullmatch(topic)} for p in patterns]
        self.named: set[str] = set().union(*self.each)
        self.topics, self.me = topics, me

    def topic(self, topic: str) -> bool:
        return (topic in self.named) is self.allows

    def subscribe(self, subscribed: str) -> bool:
        plain = subscribed.split("/", 2)[2] if subscribed.startswith("$share/") else subscribed
        matched = {topic for topic in self.topics if pattern(plain, self.me).fullmatch(topic)}
        return any(matched <= one for one in self.each) is self.allows


def expected(path: str, effect: str, item: Case, me: str, topics: list[str]) -> bool:
    if path == "api":
        me = ""
    before = Oracle("allow" if effect == "revoked" else effect, item.rules, me, topics)
    after = Oracle("deny", item.rules, me, topics) if effect == "revoked" else before
    if path in ("publish", "api"):
        return after.topic(item.topic)
    if path == "will":
        return not item.topic.startswith("$") and before.topic(item.topic) and after.topic(item.topic)
    if path == "p2p":
        return item.topic.endswith("/p2p/" + me) and (after.allows or after.topic(item.topic))
    if path == "retained":
        return any(after.subscribe(s) and not s.startswith("$share") for s in item.subscriptions) and after.topic(item.topic)
    return any(before.subscribe(s) for s in item.subscriptions) and after.topic(item.topic)


# The gateway


class Cell:
    """One cell of the matrix on a gateway: an actor with a key of its own, and a publisher who may do all."""

    def __init__(self, bed: Testbed, version: int, number: int) -> None:
        self.bed, self.version = bed, version
        self.me = f"me{number}"
        self.key = bed.loop.finish(bed.keyring.create("device", 0))
        self.publisher = bed.connect(f"publisher{number}", 5)
        self.rules: list[AccessRule] = []

    def give(self, effect: str, filters: tuple[str, ...]) -> None:
        rules = [AccessRule(self.key.id, "*", f, "allow" if effect == "revoked" else effect) for f in filters]
        self.bed.loop.finish(self.bed.node.registers.policies.put(*rules, instead_of=self.rules))
        self.rules = rules

    def revoke(self, filters: tuple[str, ...]) -> None:
        self.give("deny", filters)
        self.bed.advance(0.1)

    def actor(self, **fields: object) -> Party:
        party = self.bed.dial(self.version)
        login = {"user_name": signature_user_name(self.key.id, "bed"), "password": sign(self.key.secret.reveal().encode(), self.me)}
        party.connect(self.me, **login, **fields)
        return party

    def subscribe(self, party: Party, item: Case) -> None:
        for subscribed in item.subscriptions:
            party.subscribe(subscribed, qos=1)

    def published(self) -> int:
        return sum(1 for record in self.bed.published() if record.principal == self.key.id)


def do_publish(cell: Cell, item: Case, effect: str) -> bool:
    party = cell.actor()
    if effect == "revoked":
        party.publish(item.topic, b"before", 1)
        cell.bed.settle()
        if party.closed:
            party = cell.actor()
        cell.revoke(item.rules)
    before = cell.published()
    party.publish(item.topic, b"x", 1)
    cell.bed.settle()
    return cell.published() > before


def do_will(cell: Cell, item: Case, effect: str) -> bool:
    party = cell.actor(will=will(item.topic))
    if effect == "revoked":
        cell.revoke(item.rules)
    party.drop()
    cell.bed.settle()
    return cell.published() > 0


def do_retained(cell: Cell, item: Case, effect: str) -> bool:
    cell.publisher.exchange(item.topic, b"kept", retain=True)
    party = cell.actor()
    if effect == "revoked":
        cell.subscribe(party, item)
        cell.revoke(item.rules)
        party.payloads()
    cell.subscribe(party, item)
    return bool(party.payloads())


def do_live(cell: Cell, item: Case, effect: str) -> bool:
    party = cell.actor()
    cell.subscribe(party, item)
    if effect == "revoked":
        cell.publisher.exchange(item.topic, b"before")
        cell.revoke(item.rules)
        party.payloads()
    cell.publisher.exchange(item.topic, b"x")
    return bool(party.payloads())


def do_offline(cell: Cell, item: Case, effect: str) -> bool:
    kept = {"clean_start": False, "session_expiry": 600}
    party = cell.actor(**kept)
    cell.subscribe(party, item)
    party.drop()
    cell.publisher.exchange(item.topic, b"x")
    cell.bed.advance(1)
    if effect == "revoked":
        cell.revoke(item.rules)
    return bool(cell.actor(**kept).payloads())


def do_p2p(cell: Cell, item: Case, effect: str) -> bool:
    party = cell.actor()
    if item.subscriptions:
        party.subscribe(*item.subscriptions)
    if effect == "revoked":
        cell.revoke(item.rules)
    cell.publisher.exchange(item.topic, b"x")
    return bool(party.payloads())


def do_bridge(cell: Cell, item: Case, effect: str) -> bool:
    bed = cell.bed
    party = cell.actor()
    cell.subscribe(party, item)
    if effect == "revoked":
        cell.revoke(item.rules)
    now = bed.clock.wall()
    record = Record(
        int(Kind.PUBLISH), bed.node.ids.next(now), now, "", item.topic, b"x", qos=1, flags=int(Flag.PERSISTENT), source=int(Source.INFLOW)
    )
    bed.log.append(PUBLISH_TOPIC, "rule", record, bed.node.presence)
    return bool(party.payloads())


def do_api(cell: Cell, item: Case, effect: str) -> bool:
    bed = cell.bed
    app = create_api(Services(bed.node, bed.keyring, bed.engine, "0", lambda: 0.0))
    if effect == "revoked":
        cell.revoke(item.rules)

    async def ask() -> int:
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 9))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", auth=(cell.key.id, cell.key.secret.reveal())) as client:
            return (await client.post("/api/v1/publish", json={"topic": item.topic, "payload": "x"})).status_code

    status = bed.loop.finish(ask())
    assert status in (200, 403)
    assert (cell.published() > 0) is (status == 200)
    return status == 200


DO: dict[str, Callable[[Cell, Case, str], bool]] = {
    "publish": do_publish,
    "will": do_will,
    "retained": do_retained,
    "live": do_live,
    "offline": do_offline,
    "shared": do_live,
    "p2p": do_p2p,
    "bridge": do_bridge,
    "api": do_api,
}


@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("path", PATHS)
def test_the_27_cells_of_a_path_are_the_oracles(bed: Testbed, path: str, version: int) -> None:
    wrong, seen = [], set()
    for number, (shape, effect) in enumerate(itertools.product(SHAPES, EFFECTS)):
        cell = Cell(bed, version, number)
        item = case(path, shape, cell.me)
        wanted = expected(path, effect, item, cell.me, world(cell.me))
        cell.give(effect, item.rules)
        found = DO[path](cell, item, effect)
        seen.add(found)
        if found is not wanted:
            wrong.append((shape, effect, item, f"{found=} {wanted=}"))
        cell.publisher.exchange(item.topic, b"", retain=True)
        for party in bed.parties:
            party.drop()
        bed.settle()
    assert not wrong
    assert seen == {True, False}
