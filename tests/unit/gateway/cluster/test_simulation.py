"""Small fleets, simulated; the big one is ``python -m tests.load.fleet_simulation``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fleet_cost import measure
from tests.support.many_bed import ManyBed
from tests.support.many_mutations import MUTATIONS, Mutation
from tests.support.many_simulation import Client, Plan, Simulation

Make = Callable[..., ManyBed]
TROUBLED = Plan(kills=0.03, deaths=0.03, leaves=0.03, behind=0.03, late=0.5)
MORE = 60


def clients() -> list[Client]:
    """Of the shared subscriptions one has a single member, which is on its way from node to node at times."""
    groups = [Client(f"{group}{number}", 1 + number % 2, f"$share/{group}/t/#") for group, count in (("a", 1), ("b", 3)) for number in range(count)]
    return [Client("once", 2), Client("twice", 1), *groups]


def judge(bed: ManyBed, seed: int, clients: list[Client], plan: Plan) -> None:
    simulation = Simulation(bed, seed, clients, plan)
    simulation.run()
    assert simulation.problems() == [], (seed, simulation.happened)
    assert len(simulation.acknowledged) > plan.steps / 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_nothing_acknowledged_is_lost_whatever_happens_to_nodes(make_many: Make, seed: int) -> None:
    judge(make_many(), seed, [Client("once", 2), Client("twice", 1), Client("idle", 2)], Plan())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_nodes_that_fall_behind_or_die_silently_lose_nothing(make_many: Make, seed: int) -> None:
    """What they have not routed when their sessions are claimed, whoever claims them reads."""
    judge(make_many(), seed, clients(), TROUBLED)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 100 + MORE))
def test_more_fleets_lose_nothing(make_many: Make, seed: int) -> None:
    judge(make_many(), seed, clients(), TROUBLED)


def test_the_same_seed_is_the_same_run(make_many: Make) -> None:
    first, second = (Simulation(make_many(), 5, clients(), TROUBLED) for _ in range(2))
    for each in (first, second):
        each.run()
    assert [client.got for client in first.clients] == [client.got for client in second.clients]
    assert first.happened == second.happened


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.make.__name__)
def test_a_mistake_is_found(make_many: Make, monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    mutation.make(monkeypatch)
    simulation = Simulation(make_many(), mutation.seed, clients(), TROUBLED)
    simulation.run()
    problems = simulation.problems()
    assert [problem for problem in problems if problem.startswith(mutation.finds)], problems[:5]


@pytest.mark.slow
def test_what_a_record_costs_a_node_does_not_grow_with_the_nodes(tmp_path: Path) -> None:
    few, many = (measure(tmp_path, nodes, 15_000, 500) for nodes in (3, 60))
    for before, after in zip(few, many, strict=True):
        assert 0 < after <= 1.1 * before
