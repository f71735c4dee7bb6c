// MQTT.js as a client program (../jobs.py). Its module is found through the second argument, the folder it is installed in.

import { once } from "node:events";
import { createRequire } from "node:module";

const job = JSON.parse(process.argv[2]);
const mqtt = createRequire(process.argv[3] + "/")("mqtt");
const SESSION_EXPIRY = 3600;

const scheme = job.transport === "ws" ? "ws" : "mqtt";
const path = job.transport === "ws" ? "/mqtt" : "";
const options = { protocolVersion: job.version, clientId: job.client_id, clean: job.clean, reconnectPeriod: 0 };
if (job.version === 5 && !job.clean) options.properties = { sessionExpiryInterval: SESSION_EXPIRY };
if (job.will) options.will = { ...job.will, payload: Buffer.from(job.will.payload) };

let seen = 0;
let finish;
const done = new Promise((resolve) => (finish = resolve));
const client = mqtt.connect(`${scheme}://${job.host}:${job.port}${path}`, options);
client.on("message", (topic, payload, packet) => {
  console.log(JSON.stringify({ topic, payload: payload.toString("hex"), qos: packet.qos, retain: packet.retain }));
  seen += 1;
  if (job.role === "subscribe" && seen === job.count) finish();
});
await once(client, "connect");
if (job.role === "publish") {
  for (const payload of job.payloads) {
    await client.publishAsync(job.topic, Buffer.from(payload, "hex"), { qos: job.qos, retain: job.retain });
  }
} else {
  const granted = await client.subscribeAsync(job.topic, { qos: job.qos });
  if (granted[0].qos !== job.qos) throw new Error(`granted ${granted[0].qos}`);
  console.log("ready");
  if (job.role === "hold" || job.count > 0) await done;
}
await client.endAsync();
