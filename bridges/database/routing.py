"""The route table: which filters the sessions of which node have. Written with the changes of a commit, read by version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, bindparam, delete, select, text, update

from bridges.database.membership import Told, holds
from bridges.database.sql import Prepared, key_is, upsert
from bridges.database.tables import nodes, routes
from streams.cluster import ROUTES, NodeFence, Notice, PutRoute, Route, Routes, TrimRoutes

PUT_ROUTE: Final = upsert(routes, "count", "version", higher=("version",))
_NEWEST: Final = Prepared(update(nodes).where(key_is(nodes, "epoch"), nodes.c.routes < bindparam("newest")).values(routes=bindparam("newest")))
_TRIM: Final = Prepared(delete(routes).where(key_is(routes, "epoch"), text('"count" = 0'), routes.c.version <= bindparam("upto")))
_VERSIONS: Final = Prepared(select(nodes.c.epoch, nodes.c.routes).order_by(nodes.c.epoch))
CHANGED: Final = Prepared(
    select(routes.c.epoch, routes.c.filter, routes.c["count"], routes.c.version)
    .where(key_is(routes, "epoch"), routes.c.version > bindparam("after"))
    .order_by(routes.c.version)
    .limit(bindparam("count"))
)


class RouteChanges:
    """What commits of one transaction do to routes; refused for nodes that are dead."""

    def __init__(self, connection: Connection, told: Told) -> None:
        self._connection = connection
        self._told = told
        self._lives: dict[int, bool] = {}
        self._puts: dict[tuple[int, str], PutRoute] = {}

    def lives(self, epoch: int) -> bool:
        if epoch not in self._lives:
            self._lives[epoch] = holds(self._connection, NodeFence(epoch))
        return self._lives[epoch]

    def put(self, change: PutRoute) -> None:
        taken = self._puts.get((change.epoch, change.filter))
        if taken is None or change.version > taken.version:
            self._puts[change.epoch, change.filter] = change

    def trim(self, change: TrimRoutes) -> None:
        self.flush()
        _TRIM.run(self._connection, the_epoch=change.epoch, upto=change.upto)

    def flush(self) -> None:
        """What happens next may be a node's end: whether it lives is asked again after that."""
        self._lives = {}
        puts, self._puts = self._puts, {}
        PUT_ROUTE.many(self._connection, [{"epoch": p.epoch, "filter": p.filter, "count": p.count, "version": p.version} for p in puts.values()])
        newest: dict[int, int] = {}
        for put in puts.values():
            newest[put.epoch] = max(put.version, newest.get(put.epoch, 0))
        for epoch, version in newest.items():
            _NEWEST.run(self._connection, the_epoch=epoch, newest=version)
            self._told[Notice(ROUTES, str(epoch))] = None


def routes_behind(connection: Connection, known: Mapping[int, int], limit: int) -> Routes:
    """Only nodes that have something newer are asked for it."""
    newest = {row[0]: row[1] for row in _VERSIONS.all(connection)}
    found: list[Route] = []
    for epoch, version in newest.items():
        if version > known.get(epoch, 0) and len(found) < limit:
            rows = CHANGED.all(connection, the_epoch=epoch, after=known.get(epoch, 0), count=limit - len(found))
            found += [Route(*row) for row in rows]
    return Routes(tuple(found), tuple(sorted(epoch for epoch in known if epoch not in newest)))
