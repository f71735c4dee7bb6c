"""Sends messages with the official RocketMQ client, in a process of its own, because that client leaves threads behind.

    python rocketmq_sender.py PROXY TOPIC < messages

A line of standard input is a JSON object: body, tag, properties; group for a FIFO topic. Prints the message ids.
"""

from __future__ import annotations

import json
import sys

from rocketmq import ClientConfiguration, Credentials, Message, Producer


def main(proxy: str, topic: str) -> None:
    producer = Producer(ClientConfiguration(proxy, Credentials()), (topic,))
    producer.startup()
    for line in sys.stdin:
        given = json.loads(line)
        message = Message()
        message.topic, message.body = topic, given["body"].encode()
        if "tag" in given:
            message.tag = given["tag"]
        if "group" in given:
            message.message_group = given["group"]
        for name, value in given.get("properties", {}).items():
            message.add_property(name, value)
        print(producer.send(message).message_id)
    producer.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
