"""What the official Python client's ``send_async`` gets acknowledged a second: ``official_producer.py PROXY TOPIC SECONDS`` prints the figure.

A program of its own: the client leaves threads behind. At most WINDOW messages are on their way, as its own queue has no limit.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from rocketmq import ClientConfiguration, Credentials, Message, Producer

WINDOW = 256


def main() -> None:
    address, topic, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    producer = Producer(ClientConfiguration(address, Credentials()), (topic,))
    producer.startup()
    room, done = threading.Semaphore(WINDOW), [0]

    def acknowledged(future: object) -> None:
        done[0] += 1
        room.release()

    body, start = bytes(128), time.monotonic()
    while time.monotonic() - start < seconds:
        if not room.acquire(timeout=1.0):
            continue
        message = Message()
        message.topic, message.body = topic, body
        producer.send_async(message).add_done_callback(acknowledged)
    taken = time.monotonic() - start
    print(done[0] / taken, flush=True)
    os._exit(0)  # its threads would keep the process


if __name__ == "__main__":
    main()
