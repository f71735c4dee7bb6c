"""amqtt's client as a client program (../jobs.py): MQTT 3.1.1 alone."""

from __future__ import annotations

import asyncio
from typing import Any

from amqtt.client import MQTTClient
from output import WEBSOCKET_PATH, read_job, say, say_ready


async def run(job: dict[str, Any]) -> None:
    config: dict[str, Any] = {"auto_reconnect": False, "plugins": {}}
    if job["will"]:
        config["will"] = {**job["will"], "message": job["will"]["payload"]}
        del config["will"]["payload"]
    client = MQTTClient(job["client_id"], config)
    scheme, path = ("ws", WEBSOCKET_PATH) if job["transport"] == "ws" else ("mqtt", "/")
    await client.connect(f"{scheme}://{job['host']}:{job['port']}{path}", cleansession=job["clean"])
    if job["role"] == "publish":
        for payload in job["payloads"]:
            await client.publish(job["topic"], bytes.fromhex(payload), job["qos"], job["retain"])
    else:
        granted = await client.subscribe([(job["topic"], job["qos"])])
        if granted != [job["qos"]]:
            raise ConnectionError(f"granted {granted}")
        say_ready()
        seen = 0
        while job["role"] == "hold" or seen < job["count"]:
            message = await client.deliver_message()
            say(message.topic, bytes(message.data), message.qos, bool(message.retain))
            seen += 1
    await client.disconnect()


asyncio.run(run(read_job()))
