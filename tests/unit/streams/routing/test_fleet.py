"""Routing as a whole, simulated: nothing that is owed is lost and nothing comes out of order, whatever happens; and each mistake would be found.

The big one, with 100 nodes and a million sessions, is ``python -m tests.load.fleet_simulation``.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.fleet.cost import measure
from tests.support.fleet.mutations import MUTATIONS, Mutation
from tests.support.fleet.plans import PLANS
from tests.support.fleet.simulation import Simulation

MORE = 10
QUICK = ("faults", "lossy", "calm", "still", "moving")
"""Plans that are judged each time; the long shard has all of them, by more seeds."""
QUICKLY_FOUND = {
    "suback_does_not_wait",
    "watermark_too_early",
    "holes_are_not_read",
    "repeats_are_not_dropped",
    "a_gap_is_not_read",
    "a_dead_node_is_chosen",
}


def named(mutation: Mutation) -> str:
    return mutation.make.__name__


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_fleet_delivers_what_it_owes(name: str) -> None:
    judge(name, 0)


@pytest.mark.long
@pytest.mark.parametrize("name", PLANS)
def test_more_fleets_deliver_what_they_owe(name: str) -> None:
    plan, happened = PLANS[name], Counter[str]()
    for seed in range(MORE):
        happened += judge(name, seed)
    for event, chance in (("kill", plan.kills), ("stop", plan.stops), ("hold", plan.holds)):
        assert happened[event] or not chance, f"{event} never happened"


def judge(name: str, seed: int) -> Counter[str]:
    """What happened."""
    simulation = Simulation(PLANS[name], seed).run()
    assert simulation.problems == [], f"plan {name}, seed {seed}"
    assert len(simulation.published) > 1_000
    return simulation.happened


def test_the_same_seed_is_the_same_run() -> None:
    first, second = (Simulation(PLANS["short"], 5).run() for _ in range(2))
    assert [client.got for client in first.clients.values()] == [client.got for client in second.clients.values()]
    assert first.happened == second.happened
    assert first.slots.sent == second.slots.sent


@pytest.mark.slow
@pytest.mark.parametrize("mutation", [each for each in MUTATIONS if named(each) in QUICKLY_FOUND], ids=named)
def test_a_mistake_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    find(mutation, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("mutation", [each for each in MUTATIONS if named(each) not in QUICKLY_FOUND], ids=named)
def test_every_other_mistake_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    find(mutation, monkeypatch)


def find(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation.make(monkeypatch)
    problems = Simulation(PLANS[mutation.plan], mutation.seed).run().problems
    assert [problem for problem in problems if problem.startswith(mutation.finds)], problems[:5]


@pytest.mark.slow
def test_what_a_record_costs_a_router_does_not_grow_with_the_nodes() -> None:
    few, many = (measure(nodes, 3_000, 1_000) for nodes in (3, 100))
    assert few.routes == many.routes
    assert few.sent_a_record == pytest.approx(many.sent_a_record, rel=0.05)
    assert many.lines_a_record <= 1.1 * few.lines_a_record
