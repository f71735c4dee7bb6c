"""Prints who comes and who goes, from the RocketMQ topic of a status rule. presence.py decides.

    python status_rocketmq.py PROXY GROUP STATUS_TOPIC STATE_FILE

The tag of a status event is its type, so the broker sends the two types that count and no others.
"""

import json
import signal
import sys
import threading

import grpc
from presence import Presence
from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer
from rocketmq.v5.exception import ClientException

BATCH = 32
RETRY_AFTER = 15
"""Seconds after which the broker gives messages that were not acknowledged again."""


def watch(consumer: SimpleConsumer, presence: Presence, stop: threading.Event) -> None:
    while not stop.is_set():
        messages = consumer.receive(BATCH, RETRY_AFTER)
        for client, online in presence.take(json.loads(message.body) for message in messages):
            print(json.dumps({"client": client, "isOnline": online}), flush=True)
        for message in messages:
            consumer.ack(message)


def main(proxy: str, group: str, topic: str, path: str) -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    presence = Presence(path)
    print(json.dumps({"online": presence.online()}), flush=True)  # where it stood: a change that a crash kept from being told is in it
    while not stop.is_set():
        consumer = SimpleConsumer(ClientConfiguration(proxy, Credentials()), group, {topic: FilterExpression("connect||tcpclean")}, await_duration=5)
        consumer.startup()
        try:
            watch(consumer, presence, stop)
        except (ClientException, grpc.RpcError) as error:  # a proxy that was restarted knows the consumer no more: start a new one
            print(f"{topic}: {error}", file=sys.stderr)
            stop.wait(1)
        finally:
            consumer.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
