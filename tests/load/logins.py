"""What logging in and permissions cost: ``python -m tests.load.logins --mqload PATH [--only connects|permissions]``. Exits 1 when a goal is missed.

`connects`: each mode opens connections as fast as it can; with the default count that takes ten seconds at the goal. All clients show the same
token or JWT, which changes nothing: what was verified for one connection is not remembered for the next.
`permissions`: a gateway where rules decide every publish and delivery, and one without rules, take the same load in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from tests.load.broker import Bench, key_flags
from tests.load.figures import opened
from tests.load.switched import compare
from tests.load.table import Table
from tests.support.gateway import AccessKey, Gateway
from tests.unit.gateway.openapi.requests import v1

GOAL = 1_500
LIFE = 3_600
"""Seconds that a token is valid."""

RULES = (
    ("allow", "publish", "bench/${client}/#"),
    ("allow", "subscribe", "bench/${group}/#"),
    ("allow", "*", "devices/${device}/+/state"),
    *(("allow", "*", f"site-{number}/+/${{client}}/#") for number in range(6)),
    ("allow", "publish", "bench/#"),
    ("allow", "subscribe", "bench/#"),
    ("deny", "publish", "bench/+/locked/#"),
    ("deny", "subscribe", "bench/secret/#"),
    ("deny", "read", "+/hidden/#"),
)
"""The last two that allow are the ones that apply, and all that deny are looked at."""


def signature(bench: Bench) -> tuple[Gateway, list[str]]:
    gateway = bench.gateway(anonymous=False)
    return gateway, key_flags(gateway.create_key())


def token(bench: Bench) -> tuple[Gateway, list[str]]:
    gateway = bench.gateway(anonymous=False)
    key = gateway.create_key()
    return gateway, ["-user", f"Token|{key.id}|{key.instance}", "-pass", f"RW|{apply(gateway, key)}"]


def apply(gateway: Gateway, key: AccessKey) -> str:
    now = int(time.time() * 1000)
    fields = {"InstanceId": key.instance, "Resources": "bench/#", "Actions": "R,W", "ExpireTime": str(now + LIFE * 1000)}
    method, target, _, _ = v1(key.id, key.secret, "ApplyToken", now, **fields)
    with urllib.request.urlopen(urllib.request.Request(f"http://{gateway.http}{target}", method=method), timeout=10) as answer:
        return str(json.load(answer)["Token"])


def web_token(key: ECKey | RSAKey, algorithm: str) -> Callable[[Bench], tuple[Gateway, list[str]]]:
    def run(bench: Bench) -> tuple[Gateway, list[str]]:
        path = bench.folder / f"{algorithm}.pem"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.as_pem(private=False))
        gateway = bench.gateway(anonymous=False, config=f'[jwt]\nkeys = "{path}"\n')
        claims = {"sub": "device", "exp": int(time.time()) + LIFE, "acl": {"publish": ["bench/#"], "subscribe": ["bench/${client}/#"]}}
        return gateway, ["-user", "device", "-pass", jwt.encode({"alg": algorithm}, claims, key, algorithms=[algorithm])]

    return run


MODES: dict[str, Callable[[Bench], tuple[Gateway, list[str]]]] = {
    "signature": signature,
    "token": token,
    "JWT, ES256": web_token(ECKey.generate_key("P-256"), "ES256"),
    "JWT, RS256": web_token(RSAKey.generate_key(2048), "RS256"),
}


def connects(bench: Bench, count: int) -> bool:
    table = Table()
    for name, made in MODES.items():
        gateway, flags = made(bench)
        opened(bench, table, f"connects, {name}", gateway, flags, count, GOAL)
    return table.passed


def permissions(bench: Bench, modes: list[str]) -> bool:
    rules = "".join(
        f'[[access]]\nprincipal = "anonymous"\neffect = "{effect}"\naction = "{action}"\nfilter = "{topic}"\n' for effect, action, topic in RULES
    )
    passed = True
    for mode in modes:
        passed &= compare(bench, mode, {"off": "", f"{len(RULES)} rules": rules})
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.logins", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mqload", type=Path, required=True, help="the load generator's program")
    parser.add_argument("--only", choices=("connects", "permissions"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=15_000)
    parser.add_argument("--modes", default="publish,pubsub,p2p", help="of those of tests.load.ratios, for the permissions")
    arguments = parser.parse_args()
    passed = True
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), arguments.mqload.resolve(), arguments.rounds, arguments.seconds)
        try:
            if arguments.only != "permissions":
                passed &= connects(bench, arguments.connections)
            if arguments.only != "connects":
                passed &= permissions(bench, arguments.modes.split(","))
        except subprocess.TimeoutExpired as late:
            print(f"the load generator did not end: {late}", file=sys.stderr)
            passed = False
        finally:
            bench.close()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
