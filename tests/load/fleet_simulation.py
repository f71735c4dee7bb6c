"""A fleet of 100 nodes, simulated: ``python -m tests.load.fleet_simulation``. Prints what routing costs on few and on many nodes, and a verdict.

Costs are lines of the core that run for a record, and bytes a route; a million sessions are filters there. In the fleet that is judged each
session is modelled with all its deliveries, while nodes die, stop for 30 s, leave and come, and routers are held back for 20 s. By seeds: the
same seed, the same run. Exits 1 when a record that was owed is missing or a figure misses its goal.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from tests.load.table import Table
from tests.support.fleet.cost import measure
from tests.support.fleet.simulation import Plan, Simulation

GROWTH = 1.1
"""At most so many times the lines a record with 100 nodes as with 3."""
ROUTE_BYTES = 1_000

PLANS = {
    "faults": Plan(kills=0.03, stops=0.01, leaves=0.02, holds=0.04, joins=0.06),
    "held": Plan(kills=0.02, stops=0.0, leaves=0.0, holds=0.2, joins=0.02),
    "rolling": Plan(kills=0.0, stops=0.0, leaves=0.08, holds=0.0, joins=0.08),
    "lossy": Plan(groups=0, loss=0.05, kills=0.02, joins=0.02),
    "calm": Plan(kills=0.0, stops=0.0, leaves=0.0, holds=0.0, abrupt=0.0),
}


def cost(table: Table, sessions: int, records: int, many: int) -> None:
    few, all_of_them = measure(3, sessions, records), measure(many, sessions, records)
    for found in (few, all_of_them):
        table.note(
            f"{found.nodes} nodes, {found.sessions} sessions, {found.routes} routes: {found.lines_a_record:.1f} lines a record, "
            f"which goes to {found.sent_a_record:.2f} nodes; {found.bytes_a_route:.0f} bytes a route"
        )
    ratio = all_of_them.lines_a_record / few.lines_a_record
    table.add(f"lines a record, 3 to {many}", f"{ratio:.3f}", f"<= {GROWTH}", ratio <= GROWTH)
    size = max(few.bytes_a_route, all_of_them.bytes_a_route)
    table.add("bytes a route", f"{size:.0f}", f"<= {ROUTE_BYTES}", size <= ROUTE_BYTES)


def judge(table: Table, name: str, plan: Plan, seed: int) -> None:
    start = time.process_time()
    simulation = Simulation(plan, seed).run()
    problems, happened = simulation.problems, simulation.happened
    got = sum(len(client.got) for client in simulation.clients.values())
    events = ", ".join(f"{happened[each]} {each}" for each in ("kill", "stop", "leave", "join", "hold") if happened[each])
    remark = f"{len(simulation.published)} published, {got} delivered; {events}"
    table.add(f"{name}, seed {seed}", f"{len(problems)} wrong", "0", not problems, remark)
    took, lasted = time.process_time() - start, simulation.now / 1000
    repeats, twice = happened["repeats"], happened["shared twice"]
    table.note(f"{repeats} repeats, {twice} shared ones twice, {simulation.slots.sent} messages down; {took:.0f} s of processor for {lasted:.0f} s")
    for problem in problems[:10]:
        table.note(problem)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.fleet_simulation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="of the part that counts costs")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=1_000, help="sessions of the part that is judged")
    parser.add_argument("--rounds", type=int, default=400, help="of 50 ms")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", metavar="NAME", help=f"cost, or one of {', '.join(PLANS)}")
    arguments = parser.parse_args()
    if arguments.only not in ("", "cost", *PLANS):
        parser.error(f"--only {arguments.only}: not cost, nor one of {', '.join(PLANS)}")
    table = Table()
    if arguments.only in ("", "cost"):
        cost(table, arguments.sessions, arguments.records, arguments.nodes)
    for name, plan in PLANS.items():
        for seed in range(arguments.seeds if arguments.only in ("", name) else 0):
            crowd = replace(plan, nodes=arguments.nodes, clients=arguments.clients, rounds=arguments.rounds, shards=arguments.shards)
            big = replace(crowd, topics=200, wild=0.02, groups=10 if plan.groups else 0, publishes=10.0, moves=arguments.clients / 200)
            judge(table, name, big, seed)
    table.summary()
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
