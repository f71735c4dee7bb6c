"""Prints who comes and who goes, from the Kafka topic of a status rule. presence.py decides.

python status_kafka.py BOOTSTRAP GROUP STATUS_TOPIC STATE_FILE
"""

import asyncio
import json
import signal
import sys

from aiokafka import AIOKafkaConsumer
from presence import Presence


async def watch(bootstrap: str, group: str, topic: str, path: str) -> None:
    presence = Presence(path)
    print(json.dumps({"online": presence.online()}), flush=True)  # where it stood: a change that a crash kept from being told is in it
    settings = {"bootstrap_servers": bootstrap, "group_id": group, "enable_auto_commit": False, "auto_offset_reset": "earliest"}
    async with AIOKafkaConsumer(topic, **settings) as consumer:
        while True:
            batches = await consumer.getmany(timeout_ms=1000)
            events = [json.loads(message.value) for batch in batches.values() for message in batch]
            for client, online in presence.take(events):
                print(json.dumps({"client": client, "isOnline": online}), flush=True)
            if events:
                await consumer.commit()


async def main(*arguments: str) -> None:
    watching = asyncio.create_task(watch(*arguments))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, watching.cancel)
    await asyncio.wait([watching])
    if not watching.cancelled():
        watching.result()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
