"""A fleet of 100 nodes, simulated: ``python -m tests.load.fleet_simulation``. Prints what a record costs on few and on many nodes, and a verdict.

The nodes are the product's own gateways, in one process and in time that stands still (tests/support/many_bed.py). A million devices that are away
have sessions there and are sent commands; others go from node to node, subscribe and publish under QoS 1 and 2, while nodes die, leave, come, and
hear nothing of the log for 20 s. By seeds: the same seed, the same run. Exits 1 when something is lost, comes twice or out of order, or a figure
misses its goal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from schemas.limits import Limits
from tests.load.table import Table
from tests.support.crowd import Crowd, make_room
from tests.support.fleet_cost import measure
from tests.support.many_bed import ManyBed
from tests.support.many_simulation import Client, Plan, Simulation

GROWTH = 1.1
"""At most so many times the lines a record with 100 nodes as with 3."""
FEW = 3
PLANS = {
    "faults": Plan(kills=0.02, deaths=0.02, leaves=0.02, starts=0.08, behind=0.03),
    "held back": Plan(kills=0.02, deaths=0.0, leaves=0.0, starts=0.04, behind=0.15),
    "rolling": Plan(kills=0.0, leaves=0.08, starts=0.08),
}


def cost(table: Table, many: int, sessions: int, records: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        few, all_of_them = (measure(Path(folder), nodes, sessions, records) for nodes in (FEW, many))
    words = {"here": "where its device is", "elsewhere": "on another node", "choice": "to choose a member"}
    for name, before, after in zip(few._fields, few, all_of_them, strict=True):
        table.note(f"lines a record {words[name]}: {before:.1f} on {FEW} nodes, {after:.1f} on {many}")
        ratio = after / before
        table.add(f"{words[name]}, {FEW} to {many}", f"{ratio:.3f}", f"<= {GROWTH}", ratio <= GROWTH)


def clients(count: int, topics: int) -> list[Client]:
    """One in ten has all topics, and of ten shared subscriptions five have one member and five have four."""
    plain = [Client(f"c{number}", 1 + number % 2, "t/#" if number % 10 == 0 else f"t/{number % topics}") for number in range(count)]
    groups = [(f"g{group}", 1 + group % 2 * 3) for group in range(10)]
    return plain + [Client(f"{group}m{number}", 1 + number % 2, f"$share/{group}/t/#") for group, size in groups for number in range(size)]


def judge(table: Table, name: str, plan: Plan, seed: int, *, sessions: int, devices: int, shards: int) -> None:
    start, memory = time.process_time(), psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder:
        bed = ManyBed(Path(folder), shards=shards, limits=Limits(sessions=2 * sessions))
        make_room(bed)
        simulation = Simulation(bed, seed, clients(devices, plan.topics), plan)
        crowd = Crowd(bed, sessions)
        took, grown = time.process_time() - start, psutil.Process().memory_info().rss - memory
        simulation.also = (lambda: crowd.command(simulation),) * 4
        simulation.run()
        problems = [*simulation.problems(), *crowd.problems()]
        bed.close()
    got = sum(len(client.got) for client in simulation.clients)
    events = ", ".join(f"{count} {what}" for what, count in sorted(simulation.happened.items()))
    remark = f"{len(simulation.acknowledged)} published, {got} delivered, {sum(map(len, crowd.sent.values()))} commands; {events}"
    table.add(f"{name}, seed {seed}", f"{len(problems)} wrong", "0", not problems, remark)
    lasted, spent = bed.loop.time() - 1_000, time.process_time() - start
    table.note(
        f"{sessions} sessions of devices that are away: {grown / 1e6:.0f} MB, {took:.0f} s to begin; {spent:.0f} s of processor for {lasted:.0f} s"
    )
    for problem in problems[:10]:
        table.note(problem)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.fleet_simulation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="of devices that are away")
    parser.add_argument("--devices", type=int, default=100, help="that come, go and move")
    parser.add_argument("--records", type=int, default=5_000, help="of the part that counts costs")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", metavar="NAME", help=f"cost, or one of {', '.join(PLANS)}")
    arguments = parser.parse_args()
    if arguments.only not in ("", "cost", *PLANS):
        parser.error(f"--only {arguments.only}: not cost, nor one of {', '.join(PLANS)}")
    table = Table()
    if arguments.only in ("", "cost"):
        cost(table, arguments.nodes, min(arguments.sessions, 100_000), arguments.records)
    for name, plan in PLANS.items():
        for seed in range(arguments.seeds if arguments.only in ("", name) else 0):
            big = replace(plan, nodes=arguments.nodes, steps=arguments.steps, topics=50)
            judge(table, name, big, seed, sessions=arguments.sessions, devices=arguments.devices, shards=arguments.shards)
    table.summary()
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
