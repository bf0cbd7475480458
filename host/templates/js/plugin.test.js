import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { call, event, fromMessage, text } from "wirehook/test";
import { onEvent } from "../src/plugin.js";

const created = readFileSync("events/order_created.json", "utf8");

test("a created order becomes a webhook", () => {
  const expected =
    '{"event":"order.created","order_id":"550e8400-e29b-41d4-a716-446655440000","customer_email":"ada@example.com","total":129.5}';
  assert.deepEqual(call(onEvent, fromMessage(created)).map(text), [expected]);
});

test("other events are not for this plugin", () => {
  assert.deepEqual(call(onEvent, event("fraiseql.order.deleted")), []);
});

test("an order without an id is a dead letter", () => {
  const given = event("fraiseql.order.created", { entity: {} });
  assert.throws(() => call(onEvent, given), { tag: "reject", message: "the order has no id" });
});
