"""paho-mqtt as a client program (../jobs.py)."""

from __future__ import annotations

import threading
from typing import Any

import paho.mqtt.client as paho
from output import SESSION_EXPIRY, WEBSOCKET_PATH, read_job, say, say_ready
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Program:
    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.seen = 0
        self.connected = threading.Event()
        self.done = threading.Event()
        five = job["version"] == 5
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=job["client_id"],
            clean_session=None if five else job["clean"],
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            transport="websockets" if job["transport"] == "ws" else "tcp",
        )
        if job["transport"] == "ws":
            self.client.ws_set_options(path=WEBSOCKET_PATH)
        if job["will"]:
            will = job["will"]
            self.client.will_set(will["topic"], will["payload"], will["qos"], will["retain"])
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = self.on_subscribe
        self.client.on_message = self.on_message

    def on_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            raise ConnectionError(str(reason))
        self.connected.set()

    def on_subscribe(self, client: paho.Client, _data: Any, _mid: int, reasons: list[Any], _properties: Any) -> None:
        if reasons[0].is_failure:
            raise ConnectionError(str(reasons[0]))
        say_ready()
        if self.job["role"] == "subscribe" and self.job["count"] == 0:
            self.done.set()

    def on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        say(message.topic, message.payload, message.qos, message.retain)
        self.seen += 1
        if self.seen == self.job["count"]:
            self.done.set()

    def run(self) -> None:
        job = self.job
        options: dict[str, Any] = {}
        if job["version"] == 5:
            options["clean_start"] = job["clean"]
            if not job["clean"]:
                options["properties"] = Properties(PacketTypes.CONNECT)
                options["properties"].SessionExpiryInterval = SESSION_EXPIRY
        self.client.connect(job["host"], job["port"], **options)
        self.client.loop_start()
        if not self.connected.wait(5):
            raise TimeoutError("no CONNACK")
        if job["role"] == "publish":
            for payload in job["payloads"]:
                self.client.publish(job["topic"], bytes.fromhex(payload), job["qos"], job["retain"]).wait_for_publish(5)
        else:
            self.client.subscribe(job["topic"], job["qos"])
            self.done.wait()
        self.client.disconnect()
        self.client.loop_stop()


Program(read_job()).run()
