"""aiomqtt as a client program (../jobs.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import aiomqtt
from output import SESSION_EXPIRY, WEBSOCKET_PATH, read_job, say, say_ready
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def options(job: dict[str, Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = {"hostname": job["host"], "port": job["port"], "identifier": job["client_id"]}
    if job["transport"] == "ws":
        chosen |= {"transport": "websockets", "websocket_path": WEBSOCKET_PATH}
    if job["version"] == 5:
        chosen |= {"protocol": aiomqtt.ProtocolVersion.V5, "clean_start": job["clean"]}
        if not job["clean"]:
            chosen["properties"] = Properties(PacketTypes.CONNECT)
            chosen["properties"].SessionExpiryInterval = SESSION_EXPIRY
    else:
        chosen |= {"protocol": aiomqtt.ProtocolVersion.V311, "clean_session": job["clean"]}
    if job["will"]:
        chosen["will"] = aiomqtt.Will(**job["will"])
    return chosen


async def run(job: dict[str, Any]) -> None:
    async with aiomqtt.Client(**options(job)) as client:
        if job["role"] == "publish":
            for payload in job["payloads"]:
                await client.publish(job["topic"], bytes.fromhex(payload), job["qos"], job["retain"])
            return
        await client.subscribe(job["topic"], job["qos"])
        say_ready()
        if job["role"] == "subscribe" and job["count"] == 0:
            return
        seen = 0
        async for message in client.messages:
            say(str(message.topic), message.payload, message.qos, message.retain)
            seen += 1
            if seen == job["count"]:
                return


asyncio.run(run(read_job()))
