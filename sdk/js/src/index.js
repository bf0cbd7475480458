// What a plugin's author uses.
import { host } from "./host.js";
import { JsonNumber, parseExact, stringify } from "./numbers.js";

export { JsonNumber };

// Made once: making one takes as long as using it.
const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** A failure that the host is told of: an operator reads its message. */
export class Failure extends Error {
  constructor(tag, message) {
    super(String(message));
    this.name = "Failure";
    this.tag = tag;
  }
}

export const retry = (message) => new Failure("retry", message);
export const reject = (message) => new Failure("reject", message);

export class Event {
  #entity;
  #previous;

  constructor(raw) {
    this.key = raw.key;
    this.subject = raw.subject;
    this.entityType = raw.entityType;
    this.operation = raw.operation;
    this.entityId = raw.entityId ?? undefined;
    this.tenantId = raw.tenantId ?? undefined;
    this.timestamp = raw.timestamp ?? undefined;
    this.attempt = raw.attempt;
    this.attributes = raw.attributes;
    this.#entity = raw.entity ?? undefined;
    this.#previous = raw.previous ?? undefined;
  }

  /**
   * With JavaScript's numbers, which round beyond 2^53 and have no 1e400; `entityExact` keeps digits.
   * Parsed when it is asked for: an event that is passed by costs nothing and may have any shape.
   */
  entity() {
    if (this.#entity === undefined) throw reject("the event has no entity");
    return parse("entity", this.#entity, (text) => JSON.parse(text));
  }

  /** As `entity`, with numbers that keep their digits. */
  entityExact() {
    if (this.#entity === undefined) throw reject("the event has no entity");
    return parse("entity", this.#entity, parseExact);
  }

  previous() {
    return this.#previous === undefined ? undefined : parse("previous", this.#previous, (text) => JSON.parse(text));
  }

  previousExact() {
    return this.#previous === undefined ? undefined : parse("previous", this.#previous, parseExact);
  }

  entityText() {
    return this.#entity === undefined ? undefined : decoder.decode(this.#entity);
  }

  entityBytes() {
    return this.#entity;
  }

  previousBytes() {
    return this.#previous;
  }

  attribute(name) {
    return this.attributes.find(([known]) => known === name)?.[1];
  }

  header(name) {
    const wanted = `header.${name.toLowerCase()}`;
    return this.attributes.find(([known]) => known.toLowerCase() === wanted)?.[1];
  }
}

// Levels of arrays and objects within each other that an entity may have, in every SDK (wit/README.md). A few thousand
// would end the engine.
const DEPTH_MAX = 127;

function count(text, character) {
  let found = 0;
  for (let at = text.indexOf(character); at !== -1; at = text.indexOf(character, at + 1)) found += 1;
  return found;
}

/** Where the text that begins at `at` ends: at its closing quotation mark. */
function endOfText(text, at) {
  for (let end = text.indexOf('"', at + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text[end - 1 - backslashes] === "\\") backslashes += 1;
    if (backslashes % 2 === 0) return end;
  }
  return text.length;
}

function isTooDeep(text) {
  // Most events have fewer than that in all, which an engine counts faster than a loop can look at each character.
  if (count(text, "{") + count(text, "[") <= DEPTH_MAX) return false;
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === '"') at = endOfText(text, at);
    else if (character === "[" || character === "{") depth += 1;
    else if (character === "]" || character === "}") depth -= 1;
    if (depth > DEPTH_MAX) return true;
  }
  return false;
}

function parse(what, bytes, read) {
  const text = decoder.decode(bytes);
  if (isTooDeep(text)) throw reject(`the event's \`${what}\` is nested deeper than ${DEPTH_MAX} levels`);
  try {
    return read(text);
  } catch (error) {
    throw reject(`the event's ${what} is not JSON: ${error.message}`);
  }
}

export const webhook = {
  json(value, options) {
    const text = stringify(value);
    if (text === undefined) throw new TypeError(`webhook.json: ${typeof value} has no JSON; give it an object`);
    return webhook.bytes(text, options);
  },
  bytes(body, options = {}) {
    const bytes = typeof body === "string" ? encoder.encode(body) : body;
    if (!(bytes instanceof Uint8Array)) throw new TypeError("webhook.bytes: the body must be a string or a Uint8Array");
    const headers = Object.entries(options.headers ?? {}).map(([name, value]) => [name, String(value)]);
    const { endpoint = null, key = null, contentType = null } = options;
    return { endpoint, key, contentType, headers, body: bytes };
  },
};

export const log = Object.fromEntries(
  ["trace", "debug", "info", "warn", "error"].map((level) => [level, (message) => host.log(level, String(message))]),
);

export const config = {
  get: (name) => host.config().find(([known]) => known === name)?.[1],
  all: () => Object.fromEntries(host.config()),
};

const ADVICE = "return an array of webhooks, [] where the event is not for this plugin";

/** Calls the plugin's function, and refuses a result that is none with words that help. */
export function call(onEvent, event) {
  if (typeof onEvent !== "function") throw new TypeError("the plugin must export a function `onEvent`");
  const result = onEvent(event);
  if (typeof result?.then === "function") {
    throw new TypeError("onEvent returned a promise; calls are synchronous: remove `async`");
  }
  if (!Array.isArray(result)) throw new TypeError(`onEvent returned ${result === null ? null : typeof result}: ${ADVICE}`);
  result.forEach((one, index) => {
    if (!(one?.body instanceof Uint8Array)) {
      throw new TypeError(`element ${index} of onEvent's result is no webhook: make it with webhook.json(…)`);
    }
  });
  return result;
}
