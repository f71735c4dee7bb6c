"""Roles: who takes sessions, runs rules, leads, and what is said where nobody does. In one of many nodes each may lack each."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from gateway.cluster.roles import MISSING_AFTER, LivingRoles, Said, said, say
from gateway.rules.management import RuleManagement
from schemas.records import Kind
from schemas.rules import RuleError
from schemas.settings import ROLES, NodeSettings
from streams.cluster import routing_reader
from tests.support.many_bed import ManyBed
from tests.support.party import will

Make = Callable[..., ManyBed]
KEPT = {"clean_start": False, "session_expiry": 86_400}


def test_what_a_node_says_is_what_others_hear() -> None:
    settings = NodeSettings(many=True, roles=("api", "gateway"), advertise="a:1")
    detail = f"folder host {say(settings)} many"
    assert said(detail) == Said(frozenset({"api", "gateway"}), "a:1")
    assert said(f"folder host {say(settings, leaving=True)} many").address == ""
    assert said(f"folder host {say(NodeSettings(many=True, advertise='a:1', moved_to='b:1'))} many").address == ""
    assert said(f"folder host {say(NodeSettings(many=True, advertise='a:1', roles=('api',)))} many").address == ""
    assert said("folder host many") == Said(frozenset(ROLES), ""), "who says nothing is of an older version, which has all"


def test_a_role_that_is_missing_for_longer_is_one_line_and_one_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    roles = LivingRoles()
    assert roles.missing() == []
    most = "folder host roles=gateway,api,router many"
    for now in (0.0, MISSING_AFTER - 1):
        roles.look([most], now)
    assert roles.missing() == ["no living node has the role bridge: rules stand still"]
    assert roles.nodes == {"gateway": 1, "bridge": 0, "api": 1, "router": 1}
    assert caplog.messages == []
    for now in (MISSING_AFTER, MISSING_AFTER + 1):
        roles.look([most], now)
    roles.look([most, "folder host roles=bridge many"], MISSING_AFTER + 2)
    assert roles.missing() == []
    assert caplog.messages == ["role-missing role=bridge: no living node has it: rules stand still", "role-back role=bridge"]


def test_each_does_what_its_roles_say(make_many: Make) -> None:
    bed = make_many()
    bridge = bed.start("bridge", roles=("bridge", "api"))
    gateway = bed.start("gateway", roles=("gateway",))
    router = bed.start("router", roles=("router",))
    leases = {one.name: set(one.app._membership._leases) for one in (bridge, gateway, router)}  # type: ignore[union-attr]
    assert leases == {"bridge": {"rules"}, "gateway": set(), "router": {"presence"}}
    receiver = gateway.connect("r")
    receiver.subscribe("t", qos=1)
    gateway.connect("p").exchange("t", b"x")
    assert receiver.payloads() == [b"x"]
    bed.advance(2)
    statuses = bed.loop.finish(bed.store.statuses(["r"]))
    assert statuses["r"][0].online, "folded by the one that leads"


def test_who_has_no_clients_and_never_leads_reads_nothing_and_holds_no_position(make_many: Make) -> None:
    bed = make_many()
    bed.start("one")
    opened: list[str] = []
    open_ = bed.log.open
    bed.log.open = lambda topic, *rest: (opened.append(topic), open_(topic, *rest))[1]  # type: ignore[method-assign]
    bridge = bed.start("bridge", roles=("bridge",))
    bed.advance(3)
    assert opened == ["presence"]
    stored = bed.loop.finish(bed.store.positions())
    assert not [name for name in stored if name.partition(":")[0] == routing_reader(bridge.node.epoch)]


def test_a_dead_node_s_sessions_wait_for_one_that_takes_clients(make_many: Make) -> None:
    bed = make_many()
    gateway = bed.start("gateway", roles=("gateway",))
    rest = bed.start("rest", roles=("router", "bridge", "api"))
    party = gateway.connect("s", **KEPT, will=will("wills"))
    party.subscribe("t", qos=1)
    bed.advance(2)
    bed.kill(gateway)
    bed.advance(5)
    assert rest.node.registry.sessions == {}
    assert rest.node.roles.missing() == ["no living node has the role gateway: clients can't connect and dead nodes' sessions wait"]
    assert bed.events("s") == [Kind.CONNECT, Kind.TCPCLEAN], "who leads cleans up all the same"
    again = bed.start("again", roles=("gateway",))
    bed.advance(2)
    assert rest.node.roles.missing() == []
    assert again.node.registry.get("s") is not None
    assert gateway.node.epoch not in bed.store._state.cluster.nodes, "buried"
    again.connect("p").exchange("t", b"x")
    assert again.connect("s", **KEPT).payloads() == [b"x"]


def test_rules_are_asked_for_where_they_run_or_could(make_many: Make) -> None:
    bed = make_many()
    api = bed.start("api", roles=("api", "gateway", "router"))
    assert api.app._engine is not None
    rules = RuleManagement(api.app._engine)
    with pytest.raises(RuleError, match="rules run on the node with the role bridge, of which none lives: ask its API"):
        rules.all()
    bed.start("bridge", roles=("bridge",))
    bed.advance(2)
    with pytest.raises(RuleError, match="rules run on the node bridge, which lacks the role api: give it that: ask its API"):
        rules.all()
