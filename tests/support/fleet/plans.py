"""The fleets that the tests judge: small ones, each with its own trouble."""

from __future__ import annotations

from typing import Final

from tests.support.fleet.simulation import Plan

PLANS: Final = {
    "faults": Plan(rounds=600),
    "held": Plan(rounds=600, nodes=6, stops=0.02, holds=0.03, joins=0.05),
    "deaths": Plan(rounds=600, nodes=7, kills=0.05, joins=0.08, delay=400),
    "rolling": Plan(rounds=600, kills=0.0, stops=0.0, holds=0.0, leaves=0.03, joins=0.05),
    "moving": Plan(rounds=500, moves=2.5, groups=4, publishes=5.0, kills=0.005, stops=0.0, holds=0.0),
    "lossy": Plan(rounds=600, groups=0, loss=0.1),
    "calm": Plan(rounds=600, kills=0.0, stops=0.0, leaves=0.0, holds=0.0, abrupt=0.0),
    "still": Plan(rounds=400, moves=0.0, kills=0.0, stops=0.0, leaves=0.0, holds=0.0, abrupt=0.0, repeats=0.1),
    "short": Plan(rounds=400, nodes=4, clients=10),
}
