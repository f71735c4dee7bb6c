"""gmqtt as a client program (../jobs.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.storage import PersistentStorage
from output import SESSION_EXPIRY, read_job, say, say_ready


async def run(job: dict[str, Any]) -> None:
    options: dict[str, Any] = {}
    if job["version"] == 5 and not job["clean"]:
        options["session_expiry_interval"] = SESSION_EXPIRY
    if job["will"]:
        will = job["will"]
        options["will_message"] = gmqtt.Message(will["topic"], will["payload"], will["qos"], will["retain"])
    unacknowledged = PersistentStorage()
    client = gmqtt.Client(job["client_id"], clean_session=job["clean"], persistent_storage=unacknowledged, **options)
    done = asyncio.Event()
    seen = 0

    def on_message(_client: gmqtt.Client, topic: str, payload: bytes, qos: int, properties: dict[str, Any]) -> int:
        nonlocal seen
        say(topic, payload, qos, bool(properties["retain"]))
        seen += 1
        if seen == job["count"]:
            done.set()
        return 0

    def on_subscribe(_client: gmqtt.Client, _mid: int, _granted: Any, _properties: dict[str, Any]) -> None:
        say_ready()
        if job["role"] == "subscribe" and job["count"] == 0:
            done.set()

    client.on_message = on_message
    client.on_subscribe = on_subscribe
    await client.connect(job["host"], job["port"], version=MQTTv50 if job["version"] == 5 else MQTTv311)
    if job["role"] == "publish":
        for payload in job["payloads"]:
            client.publish(job["topic"], bytes.fromhex(payload), job["qos"], job["retain"])
        await unacknowledged.wait_empty()
    else:
        client.subscribe(job["topic"], job["qos"])
        await done.wait()
    await client.disconnect()


asyncio.run(run(read_job()))
