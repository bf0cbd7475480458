import assert from "node:assert/strict";
import { test } from "node:test";
import type { Event } from "wirehook";
import { type EventFields, call, event, fromMessage, text } from "wirehook/test";
import { onEvent } from "../src/plugin.ts";

const created = (fields: EventFields) => event("fraiseql.order.created", { entityId: "550e8400", ...fields });

test("the body is the page's", () => {
  const [webhook] = call(onEvent, created({ entity: { customer_email: "ada@example.com", total: 129.5, status: "x" } }));
  const expected = '{"event":"order.created","order_id":"550e8400","customer_email":"ada@example.com","total":129.5}';
  assert.equal(text(webhook), expected);
});

test("what the order lacks is null", () => {
  for (const entity of [{}, { customer_email: null }]) {
    const [webhook] = call(onEvent, created({ entity }));
    assert.equal(text(webhook), '{"event":"order.created","order_id":"550e8400","customer_email":null,"total":null}');
  }
});

test("an amount keeps its digits", () => {
  const [webhook] = call(onEvent, created({ entityText: '{"total":12345678901234567890.10}' }));
  const expected = '{"event":"order.created","order_id":"550e8400","customer_email":null,"total":12345678901234567890.10}';
  assert.equal(text(webhook), expected);
});

test("every format gives the same webhook", () => {
  const entity = { customer_email: "a@b.c", total: 100 };
  const messages = [
    { entity_type: "order", operation: "created", entity_id: "3333", entity },
    { id: "2222", event_type: "INSERT", entity_type: "Order", entity_id: "3333", data: entity },
    { seq: 7, object_type: "Order", op: "insert", object_id: "3333", after: entity, before: null },
  ];
  const expected = '{"event":"order.created","order_id":"3333","customer_email":"a@b.c","total":100}';
  for (const message of messages) assert.deepEqual(call(onEvent, fromMessage(message)).map(text), [expected]);
});

test("other events are filtered, whatever their shape", () => {
  for (const subject of ["fraiseql.order.updated", "fraiseql.user.created", "shop.orders"]) {
    assert.deepEqual(call(onEvent, event(subject, { entityText: "not json" })), []);
  }
});

test("an order without what makes it one is rejected", () => {
  const check = (given: Event, message: string) => assert.throws(() => call(onEvent, given), { tag: "reject", message });
  check(event("fraiseql.order.created", { entity: {} }), "the order has no id");
  check(created({}), "the event has no entity");
  check(created({ entity: "text" }), "the order is no object");
});
