// For a plugin's native tests: events, config, collected logs, and time and chance as in the sandbox.
import { begin, Date as PluginDate, getRandomValues, random, randomUUID } from "./deterministic.js";
import { pluginConsole } from "./console.js";
import { host } from "./host.js";
import { Event, call as callPlugin } from "./index.js";
import { parseExact, stringify } from "./numbers.js";

const encode = (value) => (value === undefined ? null : new TextEncoder().encode(stringify(value)));

/** An event by its subject and what else a test cares for. */
export function event(subject, fields = {}) {
  const parts = subject.split(".");
  const isFraiseql = parts.length === 3 && parts[0] === "fraiseql";
  const { entity, previous, entityText, attributes = {}, ...rest } = fields;
  const known = { source: "test", format: isFraiseql ? "page" : "json", raw_subject: subject, ...attributes };
  return new Event({
    key: "test/once/1",
    subject,
    entityType: isFraiseql ? parts[1] : "",
    operation: isFraiseql ? parts[2] : "custom",
    attempt: 1,
    ...rest,
    attributes: Object.entries(known),
    entity: entityText === undefined ? encode(entity) : new TextEncoder().encode(entityText),
    previous: encode(previous),
  });
}

const FORMATS = [
  ["page", "entity_type", "operation", "entity_id", "entity", "previous", "timestamp"],
  ["entity_event", "entity_type", "event_type", "entity_id", "data", "before", "timestamp"],
  ["change_event", "object_type", "op", "object_id", "after", "before", "commit_time"],
  ["outbox", "object_type", "modification_type", "object_id", "object_data", "object_data_before", "commit_time"],
];
const OPERATIONS = { insert: "created", update: "updated", delete: "deleted" };

/** The event that the host makes of a message in one of FraiseQL's formats; other JSON is the entity of `test`. */
export function fromMessage(given) {
  const message = typeof given === "string" ? parseExact(given) : given;
  return read(message);
}

function read(message) {
  const format = FORMATS.find(([, type, verb]) => typeof message?.[type] === "string" && typeof message[verb] === "string");
  if (!format) return event("test", { entity: message });
  const [name, type, verb, id, entity, previous, timestamp] = format;
  const given = (member) => message[member] ?? undefined;
  const text = (member) => (given(member) === undefined ? undefined : String(message[member]));
  const entityType = snakeCase(message[type]);
  const operation = message[verb].toLowerCase();
  const attributes = { format: name };
  for (const [attribute, member] of [["seq", "seq"], ["traceparent", "trace_context"], ["actor", "actor_type"]]) {
    if (given(member) !== undefined) attributes[attribute] = text(member);
  }
  const identity = given("seq") === undefined ? text("id") && `test/id/${text("id")}` : `test/seq/${entityType}:${text("seq")}`;
  return event(`fraiseql.${entityType}.${OPERATIONS[operation] ?? operation}`, {
    key: identity ?? "test/once/1",
    entityId: text(id),
    tenantId: text("tenant_id"),
    timestamp: text(timestamp),
    entity: given(entity),
    previous: given(previous),
    attributes,
  });
}

const snakeCase = (name) =>
  name.replace(/([\p{Ll}\d])(\p{Lu})/gu, "$1_$2").replace(/(\p{Lu})(\p{Lu}\p{Ll})/gu, "$1_$2").toLowerCase();

/** Calls a plugin's function as the host would; `logs` collects what it logged. */
export function call(onEvent, given, { config = {}, logs = [], state = new Map() } = {}) {
  const saved = { ...host };
  const globals = { Date, console, crypto: Object.getOwnPropertyDescriptor(globalThis, "crypto"), random: Math.random };
  host.log = (level, message) => logs.push({ level, message });
  host.state = state;
  host.config = () => Object.entries(config).map(([name, value]) => [name, String(value)]);
  begin(given);
  globalThis.Date = PluginDate;
  globalThis.console = pluginConsole;
  Math.random = random;
  Object.defineProperty(globalThis, "crypto", { value: { getRandomValues, randomUUID }, configurable: true });
  try {
    return callPlugin(onEvent, given);
  } finally {
    Object.assign(host, saved);
    globalThis.Date = globals.Date;
    globalThis.console = globals.console;
    Math.random = globals.random;
    delete globalThis.crypto;
    if (globals.crypto) Object.defineProperty(globalThis, "crypto", globals.crypto);
  }
}

export const text = (webhook) => new TextDecoder().decode(webhook.body);
