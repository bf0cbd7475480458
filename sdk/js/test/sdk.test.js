import assert from "node:assert/strict";
import { test } from "node:test";
import { JsonNumber, config, retry, webhook } from "wirehook";
import * as state from "wirehook/state";
import { call, event, text } from "wirehook/test";

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

test("an error is logged once, with its stack", () => {
  const logs = [];
  const fail = () => (console.error("no", new TypeError("wrong")), []);
  call(fail, event("test"), { logs });
  const [{ level, message }] = logs;
  assert.equal(level, "error");
  assert.match(message, /^no TypeError: wrong\n +at fail \(.*sdk\.test\.js:\d+:\d+\)/);
  assert.equal(message.split("TypeError").length, 2);
});

test("a wrong result is told with what to do", () => {
  const check = (onEvent, message) => assert.throws(() => call(onEvent, event("test")), { message });
  check(async () => [], /remove `async`/);
  check(() => undefined, /return an array of webhooks/);
  check(() => [{}], /element 0 .* webhook.json/);
  check(() => { throw retry("later"); }, "later");
});

test("an entity that is too deep is named", () => {
  const nested = (levels) => "[".repeat(levels) + "]".repeat(levels);
  const read = (entityText) => () => {
    const given = event("test", { entityText });
    return given.entityExact() && given.entity();
  };
  const refused = { tag: "reject", message: "the event's `entity` is nested deeper than 127 levels" };
  for (const text of [nested(128), nested(5000), `{"a":${nested(127)}}`, `["\\\\",${nested(127)}]`]) {
    assert.throws(read(text), refused);
  }
  for (const text of [nested(127), `["${"[".repeat(200)}\\"",[]]`, `[${"{},".repeat(200)}{}]`]) read(text)();
});

test("numbers keep their digits where that is asked for", () => {
  const entityText = '{"a":12345678901234567890.10,"b":[1.0,-2e3],"c":"\\u0000n1","d":"x\\"\\u0000n7"}';
  const given = event("test", { entityText });
  const pass = (read) => text(call((one) => [webhook.json(read(one))], given)[0]);
  assert.equal(pass((one) => one.entityExact()), entityText);
  assert.equal(pass((one) => one.entity().b), "[1,-2000]");
  assert.equal(Number(given.entityExact().a), 12345678901234567000);
  assert.throws(() => new JsonNumber("1,5"), /no number of JSON/);
  assert.throws(() => event("test", { entityText: "[01]" }).entityExact(), { tag: "reject" });
});

test("what is kept belongs to the test, within the host's bounds", () => {
  const seen = () => {
    state.set("seen", String(Number(state.getText("seen") ?? 0) + 1));
    return [webhook.json(state.getText("seen"))];
  };
  const kept = new Map();
  for (const expected of ['"1"', '"2"']) assert.equal(text(call(seen, event("test"), { state: kept })[0]), expected);
  assert.equal(text(call(seen, event("test"))[0]), '"1"');
  assert.throws(() => state.set("", "x"), { reason: "key" });
  assert.throws(() => state.set("a", "x".repeat(65537)), { reason: "value" });
});
