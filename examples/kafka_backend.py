"""A backend on Kafka: reads what devices publish and tells each of them, by a P2P command, that its message has arrived.

    python kafka_backend.py BOOTSTRAP GROUP OUTFLOW_TOPIC COMMAND_TOPIC

OUTFLOW_TOPIC is the target of an outflow rule, COMMAND_TOPIC the source of an inflow rule. Prints a JSON object a message. Stops with
SIGTERM or Ctrl-C.
"""

import asyncio
import json
import signal
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def command(producer: AIOKafkaProducer, topic: str, client: str, body: bytes) -> None:
    """A message for one device: it need not subscribe to anything. Not connected, it gets it later, for the second header says `false`."""
    headers = [("mqttSecondTopic", f"/p2p/{client}".encode()), ("cleansessionflag", b"false"), ("qoslevel", b"1")]
    await producer.send_and_wait(topic, body, key=client.encode(), headers=headers)


async def serve(bootstrap: str, group: str, outflow: str, commands: str) -> None:
    settings = {"bootstrap_servers": bootstrap, "group_id": group, "enable_auto_commit": False, "auto_offset_reset": "earliest"}
    async with (
        AIOKafkaConsumer(outflow, **settings) as consumer,
        AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer,
    ):
        async for message in consumer:
            about = {name: value.decode() for name, value in message.headers}
            number = about["mqttMessageId"]  # the id that the gateway knows the message by
            print(json.dumps({"id": number, "properties": about, "body": message.value.decode(errors="replace")}), flush=True)
            if "clientId" in about:
                await command(producer, commands, about["clientId"], json.dumps({"received": number}).encode())
            # After the command: a crash before this line sends it twice, the other way round it would be lost
            await consumer.commit()


async def main(*arguments: str) -> None:
    serving = asyncio.create_task(serve(*arguments))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
