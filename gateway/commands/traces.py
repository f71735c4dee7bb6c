"""`trace` and the histories of `status`: one call of the API, and its answer a line an event."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from gateway.commands.client import call
from gateway.commands.endpoint import Endpoint
from gateway.commands.errors import CommandError

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_SINCE: Final = 10**9


def add_trace(commands: Any, add_gateway: Callable[[argparse.ArgumentParser], None], find: Callable[[argparse.Namespace], Endpoint]) -> None:
    words = "what happened to a client or a message, newest first"
    parser = commands.add_parser("trace", help=words, description=words, allow_abbrev=False)
    parser.add_argument("--client", default="", metavar="CLIENT_ID", help="of this client")
    parser.add_argument("--message", default="", metavar="ID", help="of this message: 32 hex digits")
    parser.add_argument("--kind", default="", choices=("device", "message"), help="only what happened to devices, or to messages")
    parser.add_argument("--since", default="1d", metavar="TIME", help="not longer ago: 30s, 15m, 2h, 3d (default 1d)")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (default 100, up to 1000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_gateway(parser)

    def command(arguments: argparse.Namespace) -> int:
        show_trace(find(arguments), arguments.client, arguments.message, arguments.kind, arguments.since, arguments.limit, as_json=arguments.json)
        return 0

    parser.set_defaults(command=command)


def show_trace(endpoint: Endpoint, client: str, message: str, kind: str, since: str, limit: int, *, as_json: bool) -> None:
    asked = {"client": client, "message": message, "kind": kind, "begin": _begin(since), "pageSize": limit, "reverse": "true"}
    _show(call(endpoint, "GET", "/api/v1/trace?" + urlencode({name: value for name, value in asked.items() if value != ""})), as_json=as_json)


def show_history(endpoint: Endpoint, client: str, *, as_json: bool) -> None:
    """Connects and closes of a client, newest first."""
    _show(call(endpoint, "GET", f"/api/v1/history/{quote(client, safe='/')}?begin=0"), as_json=as_json)


def _begin(since: str) -> int:
    count, unit = since[:-1], UNITS.get(since[-1:])
    if unit is None or not (count.isascii() and count.isdigit()) or int(count) * unit > MAX_SINCE:
        raise CommandError(f"--since {since}: it must be a number and s, m, h or d, such as 15m")
    return max(0, int((time.time() - int(count) * unit) * 1000))


def _show(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer))
        return
    for event in answer["events"]:
        named = (event.get(name, "") for name in ("messageId", "channelId", "detail"))
        print(" ".join([_when(event["time"]), f"{event['action']:<12}", event["clientId"] or "-", *filter(None, named)]))
    if answer["total"] > len(answer["events"]):
        print(f"({answer['total'] - len(answer['events'])} more; --limit shows more)")
    for gap in answer["gaps"]:
        lost = f"{gap['messages']} messages not picked, {gap['events']} events lost"
        known = lost if gap["messages"] or gap["events"] else "nothing is known"
        where = f" on node {gap['node']}" if "node" in gap else ""
        print(f"gap from {_when(gap['begin'])} to {_when(gap['end'])}{where}: {known}")


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
