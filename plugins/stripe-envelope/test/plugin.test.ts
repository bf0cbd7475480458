import assert from "node:assert/strict";
import { test } from "node:test";
import { type EventFields, call, event, text } from "wirehook/test";
import { onEvent } from "../src/plugin.ts";

const KEY = "bus/id/0198";
const run = (operation: string, fields: EventFields) =>
  call(onEvent, event(`fraiseql.order.${operation}`, { key: KEY, timestamp: "2026-03-02T14:00:00Z", ...fields }), {
    config: { api_version: "2026-01-01", livemode: true },
  }).map(text);

test("an event has the envelope, and amounts their digits", () => {
  const [body] = run("created", { entityText: '{"id":"o1","total":129.50}' });
  const id = /"id":"(evt_[0-9a-z]{24})"/.exec(body!)?.[1];
  const expected =
    `{"id":"${id}","object":"event","api_version":"2026-01-01","created":1772460000,"livemode":true,` +
    '"type":"order.created","data":{"object":{"object":"order","id":"o1","total":129.50}},' +
    `"request":{"id":null,"idempotency_key":"${KEY}"}}`;
  assert.equal(body, expected);
});

test("the same event has the same id, another event another", () => {
  const id = (key: string) => JSON.parse(run("created", { key, entity: {} })[0]!).id;
  assert.equal(id("a"), id("a"));
  assert.notEqual(id("a"), id("b"));
});

test("an update tells what the changed members were before", () => {
  const [body] = run("updated", {
    entity: { id: "o1", status: "shipped", lines: [1], tracking: "Z1" },
    previous: { id: "o1", status: "paid", lines: [1], note: "soon" },
  });
  assert.deepEqual(JSON.parse(body!).data.previous_attributes, { status: "paid", tracking: null, note: "soon" });
});

test("a deletion tells what was deleted", () => {
  const [body] = run("deleted", { previous: { id: "o1" } });
  assert.deepEqual(JSON.parse(body!).data, { object: { object: "order", id: "o1" } });
});

test("what is no entity is rejected, what is no change filtered", () => {
  assert.deepEqual(run("custom", { entity: {} }), []);
  assert.throws(() => run("created", {}), { tag: "reject", message: "the event has no entity" });
  assert.throws(() => run("created", { entity: 7 }), { tag: "reject", message: "the entity is no object" });
});
