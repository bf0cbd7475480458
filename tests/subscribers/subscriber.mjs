// The same work in Node, written by hand and with care: core NATS, kept connections, 64 requests under way.
//
// `subscriber.mjs PACKAGES NATS RECEIVER`, with the secret in `SUBSCRIBER_SECRET`; prints `ready`, and runs until it is
// killed. It fails on any refusal: a yardstick that loses events measures nothing.

import { createHmac } from "node:crypto";
import { createRequire } from "node:module";

const [packages, server, receiver] = process.argv.slice(2);
const installed = createRequire(`${packages}/package.json`);
const { connect } = installed("nats");
const { Pool } = installed("undici");

const SUBJECT = "fraiseql.order.created";
const IN_FLIGHT = 64;
const SECRET = process.env.SUBSCRIBER_SECRET;

const { origin, pathname } = new URL(receiver);
const pool = new Pool(origin, { connections: IN_FLIGHT });

async function send(number, data) {
  const { entity_id, entity } = JSON.parse(Buffer.from(data).toString());
  const body = JSON.stringify({
    event: "order.created",
    order_id: entity_id,
    customer_email: entity.customer_email ?? null,
    total: entity.total ?? null,
  });
  const timestamp = Math.floor(Date.now() / 1000).toString();
  const response = await pool.request({
    path: pathname,
    method: "POST",
    headers: {
      "content-type": "application/json",
      "x-signature": `sha256=${createHmac("sha256", SECRET).update(`${timestamp}.${body}`).digest("hex")}`,
      "x-timestamp": timestamp,
      "webhook-id": `msg_${number.toString(16).padStart(32, "0")}`,
    },
    body,
  });
  await response.body.dump();
  if (response.statusCode >= 300) throw new Error(`the receiver answered ${response.statusCode}`);
}

const nats = await connect({ servers: server });
const messages = nats.subscribe(SUBJECT);
await nats.flush();
console.log("ready");
let number = 0;
const underWay = new Set();
for await (const message of messages) {
  const sent = send(number++, message.data).then(() => underWay.delete(sent));
  underWay.add(sent);
  // A refusal rejects the race, which ends the process.
  if (underWay.size >= IN_FLIGHT) await Promise.race(underWay);
}
