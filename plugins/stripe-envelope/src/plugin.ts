// Keeps a compatible Stripe-like envelope: receivers that were written for such events need no change.
import { type Event, type Exact, JsonNumber, type Webhook, config, reject, webhook } from "wirehook";

type Entity = Record<string, unknown>;

/** What a receiver reads. Members may be added; none is ever taken away under one `api_version`. */
interface Envelope {
  id: string;
  object: "event";
  api_version: string;
  created: number;
  livemode: boolean;
  type: string;
  data: { object: Exact<Entity>; previous_attributes?: Exact<Entity> };
  request: { id: null; idempotency_key: string };
}

const VERBS = ["created", "updated", "deleted"];
const ID_CHARACTERS = 24;

export function onEvent(event: Event<Entity>): Webhook[] {
  if (!VERBS.includes(event.operation)) return [];
  const previous = event.previousExact();
  // A deletion has no entity after it: what was deleted is told.
  const object = event.entityText() === undefined && previous !== undefined ? previous : event.entityExact();
  if (!isObject(object)) throw reject("the entity is no object");

  const data: Envelope["data"] = { object: { object: event.entityType, ...object } };
  if (event.operation === "updated" && isObject(previous)) data.previous_attributes = changed(previous, object);
  const envelope: Envelope = {
    id: `evt_${idOf(event.key)}`,
    object: "event",
    api_version: config.get("api_version") ?? "2026-01-01",
    // The event's time, in seconds: the same at every retry.
    created: Math.floor(Date.now() / 1000),
    livemode: config.get("livemode") === "true",
    type: `${event.entityType}.${event.operation}`,
    data,
    request: { id: null, idempotency_key: event.key },
  };
  return [webhook.json(envelope)];
}

/** What the members that changed were before; null for those that are new. */
function changed(previous: Exact<Entity>, now: Exact<Entity>): Exact<Entity> {
  const names = [...new Set([...Object.keys(now), ...Object.keys(previous)])];
  const differ = names.filter((name) => textOf(previous[name]) !== textOf(now[name]));
  return Object.fromEntries(differ.map((name) => [name, previous[name] ?? null]));
}

const textOf = (value: unknown): string =>
  JSON.stringify(value, (_, one) => (one instanceof JsonNumber ? one.text : one)) ?? "";

const isObject = (value: unknown): value is Exact<Entity> =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof JsonNumber);

/** 24 letters and digits of the event's key, two FNV-1a hashes of 64 bits: the same event always has the same id. */
function idOf(key: string): string {
  const bytes = new TextEncoder().encode(key);
  const digits = [0xcbf29ce484222325n, 0x84222325cbf29cen].map((seed) => {
    let hash = seed;
    for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
    return hash.toString(36).padStart(13, "0");
  });
  return digits.join("").slice(-ID_CHARACTERS);
}
