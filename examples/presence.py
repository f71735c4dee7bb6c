"""Who is online, decided from status events that come at least once and in any order. status_kafka.py and status_rocketmq.py feed it.

A channel is one connection of a client: open from its `connect` to its `tcpclean`. (`disconnect` says that the client took leave; what tells that
it is gone is `tcpclean`, which always follows.) Both ends are kept by channel, so the order of arrival makes no difference and a copy changes
nothing. A client is online while one of its channels is open. A closed channel stays as a tombstone for a while, or a late copy of its
`connect` would bring the client back.

The state is a SQLite file. It is committed before the events are acknowledged to the broker: a crash makes them come again, and no harm is done.
"""

import sqlite3
from collections.abc import Iterable

KEEP_MS = 7 * 24 * 3600 * 1000
"""Of tombstones, by the events' own time. Longer than the broker keeps events, so that no copy comes later."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS channel (client TEXT, id TEXT, opened INTEGER, closed INTEGER, PRIMARY KEY (client, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tombstone ON channel (closed);
"""
TAKE = """
INSERT INTO channel VALUES (:client, :id, :opened, :closed) ON CONFLICT DO UPDATE
SET opened = coalesce(opened, excluded.opened), closed = coalesce(closed, excluded.closed)
"""
OPEN = "opened IS NOT NULL AND closed IS NULL"


class Presence:
    def __init__(self, path: str) -> None:
        self.database = sqlite3.connect(path)
        self.database.executescript(SCHEMA)

    def take(self, events: Iterable[dict]) -> list[tuple[str, bool]]:
        """Safe on disk when this returns: the clients that came online (True) or went (False) by these events."""
        changes = []
        with self.database:
            for event in events:
                kind, client, time = event["eventType"], event["clientId"], event["time"]
                if kind not in ("connect", "tcpclean"):
                    continue
                before = self.is_online(client)
                ends = {"opened": time, "closed": None} if kind == "connect" else {"opened": None, "closed": time}
                self.database.execute(TAKE, {"client": client, "id": event["channelId"], **ends})
                self.database.execute("DELETE FROM channel WHERE closed < ?", (time - KEEP_MS,))
                if (after := self.is_online(client)) != before:
                    changes.append((client, after))
        return changes

    def is_online(self, client: str) -> bool:
        return self.database.execute(f"SELECT 1 FROM channel WHERE client = ? AND {OPEN}", (client,)).fetchone() is not None

    def online(self) -> list[str]:
        return [client for (client,) in self.database.execute(f"SELECT DISTINCT client FROM channel WHERE {OPEN} ORDER BY client")]
