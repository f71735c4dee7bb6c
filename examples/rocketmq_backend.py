"""A backend on RocketMQ: reads what devices publish and tells each of them, by a P2P command, that its message has arrived.

    python rocketmq_backend.py PROXY GROUP OUTFLOW_TOPIC COMMAND_TOPIC

Uses the official client, which speaks to a RocketMQ 5 proxy. OUTFLOW_TOPIC is the target of an outflow rule, COMMAND_TOPIC the source of
an inflow rule. Prints a JSON object a message. Stops with SIGTERM or Ctrl-C.
"""

import json
import signal
import sys

from rocketmq import ClientConfiguration, ConsumeResult, Credentials, FilterExpression, Message, MessageListener, Producer, PushConsumer


def command(topic: str, client: str, body: bytes) -> Message:
    """A message for one device: it need not subscribe to anything. Not connected, it gets it later, for the second property says `false`."""
    message = Message()
    message.topic, message.body = topic, body
    message.add_property("mqttSecondTopic", f"/p2p/{client}")
    message.add_property("cleansessionflag", "false")
    message.add_property("qoslevel", "1")
    return message


class Backend(MessageListener):
    def __init__(self, producer: Producer, commands: str) -> None:
        self.producer = producer
        self.commands = commands

    def consume(self, message: Message) -> ConsumeResult:
        """Called by several threads. A message that fails, or that a crash interrupts, comes again, so its command may be sent twice."""
        about = message.properties
        body = b"" if about.get("mqttEmptyBody") == "true" else message.body  # RocketMQ knows no empty messages, MQTT does
        print(json.dumps({"id": message.message_id, "tag": message.tag, "properties": about, "body": body.decode(errors="replace")}), flush=True)
        if "clientId" in about:
            self.producer.send(command(self.commands, about["clientId"], json.dumps({"received": message.message_id}).encode()))
        return ConsumeResult.SUCCESS


def main(proxy: str, group: str, outflow: str, commands: str) -> None:
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before there are threads: they inherit it, and the signal is left to sigwait
    settings = ClientConfiguration(proxy, Credentials())
    producer = Producer(settings, (commands,))
    producer.startup()
    consumer = PushConsumer(settings, group, Backend(producer, commands), {outflow: FilterExpression()})
    consumer.startup()
    signal.sigwait(signals)
    consumer.shutdown()
    producer.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
