"""A Faust application over the Kafka topic of a status rule: who is online, and how many connections each group made, minute by minute.

    KAFKA=127.0.0.1:9092 STATUS_TOPIC=status PARTITIONS=8 faust -A status_faust worker --web-host 127.0.0.1 --web-port 6066
    curl http://127.0.0.1:6066/online/    curl http://127.0.0.1:6066/connections/

PARTITIONS is how many the status topic has: a table is divided as its events are. Both tables live in memory and in changelog topics, from
which they come back when a worker died. Events come at least once, so nothing adds one to a number: what is kept is *which* channels there were.
"""

import os

import faust

MINUTE = 60.0
GROUP_SEPARATOR = "@@@"
KEEP_MS = 7 * 24 * 3600 * 1000
"""Of closed channels, against late copies of their `connect` (presence.py says more)."""


class Event(faust.Record, serializer="json"):
    eventType: str
    clientId: str
    channelId: str
    time: int
    clientIp: str = ""


app = faust.App(
    os.environ.get("APP", "sluiceway-status"),
    broker=f"kafka://{os.environ['KAFKA']}",
    broker_session_timeout=10,  # seconds until the partitions of a worker that was killed go to another
    topic_partitions=int(os.environ["PARTITIONS"]),
    store="memory://",
)
events = app.topic(os.environ["STATUS_TOPIC"], key_type=bytes, value_type=Event)
channels = app.Table("channels", default=dict)
"""By client: for each channel when it opened and when it closed."""
connections = app.Table("connections", default=list).tumbling(MINUTE, expires=24 * 60 * MINUTE).relative_to(lambda event: event.value.time / 1000)
"""By group and minute: the channels that opened."""


@app.agent(events)
async def decide(stream: faust.StreamT[Event]) -> None:
    async for event in stream:
        if event.eventType in ("connect", "tcpclean"):
            mine = {channel: ends for channel, ends in channels[event.clientId].items() if ends[1] is None or ends[1] > event.time - KEEP_MS}
            opened, closed = mine.get(event.channelId, (None, None))
            mine[event.channelId] = (event.time, closed) if event.eventType == "connect" else (opened, event.time)
            channels[event.clientId] = mine  # assigned, not changed in place: that is what writes the changelog


@app.agent(events)
async def count(stream: faust.StreamT[Event]) -> None:
    async for event in stream.group_by(lambda event: event.clientId.partition(GROUP_SEPARATOR)[0], name="group"):
        if event.eventType == "connect" and event.channelId not in (seen := connections[event.clientId.partition(GROUP_SEPARATOR)[0]].value()):
            connections[event.clientId.partition(GROUP_SEPARATOR)[0]] = [*seen, event.channelId]


@app.page("/online/")
async def online(view: faust.web.View, request: faust.web.Request) -> faust.web.Response:
    """Of the partitions that this worker has."""
    return view.json(sorted(client for client, mine in channels.items() if any(ends[0] and not ends[1] for ends in mine.values())))


@app.page("/connections/")
async def counted(view: faust.web.View, request: faust.web.Request) -> faust.web.Response:
    return view.json([[group, start, len(seen)] for (group, (start, _)), seen in sorted(connections.table.items())])
