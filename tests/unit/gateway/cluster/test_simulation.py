"""Small fleets, simulated; the big one is ``python -m tests.load.fleet_simulation``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.many_bed import ManyBed
from tests.support.many_simulation import Client, Plan, Simulation

Make = Callable[..., ManyBed]
TROUBLED = Plan(kills=0.03, deaths=0.03, leaves=0.03, behind=0.03)


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
@pytest.mark.parametrize("seed", range(8))
def test_nodes_that_fall_behind_or_die_silently_lose_nothing(make_many: Make, seed: int) -> None:
    """What they have not routed when their sessions are claimed, whoever claims them reads."""
    judge(make_many(), seed, [Client("once", 2), Client("twice", 1), Client("idle", 2)], TROUBLED)


@pytest.mark.slow
@pytest.mark.parametrize("plan", [Plan(), TROUBLED], ids=["plain", "troubled"])
@pytest.mark.parametrize("seed", range(8))
def test_each_record_comes_to_a_member_of_a_shared_subscription(make_many: Make, seed: int, plan: Plan) -> None:
    """Members come, go and move; of some groups there is one, which is on its way from node to node at times."""
    groups = [Client(f"{group}{number}", 1 + number % 2, f"$share/{group}/t/#") for group, count in (("a", 1), ("b", 4)) for number in range(count)]
    judge(make_many(), seed, [Client("plain", 2), *groups], plan)
