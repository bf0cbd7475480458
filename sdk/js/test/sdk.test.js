import assert from "node:assert/strict";
import { test } from "node:test";
import { config, retry, webhook } from "wirehook-sdk";
import { call, event, text } from "wirehook-sdk/test";

const TIMESTAMP = "2026-03-02T14:00:00.000Z";
const facts = () => [webhook.json([new Date().toISOString(), Date.now(), Math.random(), crypto.randomUUID()])];
const seen = (key) => text(call(facts, event("test", { key, timestamp: TIMESTAMP }))[0]);

test("time and chance are the event's", () => {
  assert.equal(seen("a"), seen("a"));
  assert.notEqual(seen("a"), seen("b"));
  assert.equal(JSON.parse(seen("a"))[0], TIMESTAMP);
  assert.notEqual(new Date().toISOString(), TIMESTAMP);
});

test("config and log lines are the call's", () => {
  const logs = [];
  call(() => (console.warn("in", config.get("currency")), []), event("test"), { config: { currency: "EUR" }, logs });
  assert.deepEqual(logs, [{ level: "warn", message: "in EUR" }]);
});

test("a wrong result is told with what to do", () => {
  const check = (onEvent, message) => assert.throws(() => call(onEvent, event("test")), { message });
  check(async () => [], /remove `async`/);
  check(() => undefined, /return an array of webhooks/);
  check(() => [{}], /element 0 .* webhook.json/);
  check(() => { throw retry("later"); }, "later");
});
