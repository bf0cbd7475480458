/** One message from a bus, normalised. Its entity is read as `T`, which is the author's claim: nothing checks it. */
export class Event<T = any> {
  private constructor();
  /** The same at every redelivery, retry and redrive. Opaque. */
  readonly key: string;
  /** `fraiseql.{entityType}.{operation}` for FraiseQL's formats, else the bus's own subject. */
  readonly subject: string;
  /** In snake_case; empty where the format was not recognised. */
  readonly entityType: string;
  /** `created`, `updated`, `deleted` or `custom`. Pass by other words. */
  readonly operation: string;
  readonly entityId: string | undefined;
  readonly tenantId: string | undefined;
  /** As the publisher wrote it; RFC 3339 in FraiseQL's formats. */
  readonly timestamp: string | undefined;
  readonly attributes: ReadonlyArray<readonly [string, string]>;
  /** Which try of this run this is, from 1. */
  readonly attempt: number;
  /**
   * The entity after the change, with JavaScript's numbers: 2^53+1 and 1e400 are not what was sent; `entityExact` keeps digits.
   * Parsed at each call. Where there is none, or it is not JSON or nested deeper than 127 levels, the event is rejected.
   */
  entity(): T;
  /** The entity before the change, where the publisher sent it. */
  previous(): T | undefined;
  /** As `entity`, with every number a `JsonNumber`: amounts keep their digits. */
  entityExact(): Exact<T>;
  previousExact(): Exact<T> | undefined;
  /** The entity's JSON as it came, and its bytes. */
  entityText(): string | undefined;
  entityBytes(): Uint8Array | undefined;
  previousBytes(): Uint8Array | undefined;
  attribute(name: string): string | undefined;
  /** A header of the bus, whatever its capitals. */
  header(name: string): string | undefined;
}

/** A number as it is written in JSON; `webhook.json` writes it so again. `Number(…)` makes a double of it. */
export class JsonNumber {
  constructor(text: string);
  readonly text: string;
  valueOf(): number;
  toString(): string;
}

/** `T` as `entityExact` reads it. */
export type Exact<T> = T extends number
  ? JsonNumber
  : T extends readonly (infer E)[]
    ? Exact<E>[]
    : T extends object
      ? { [K in keyof T]: Exact<T[K]> }
      : T;

export interface WebhookOptions {
  /** An endpoint's name in the host's settings; default: the plugin's first. */
  endpoint?: string;
  /** Tells it from the event's other webhooks for its endpoint; default: the position. 1 to 256 bytes. */
  key?: string;
  /** Default: `application/json`. */
  contentType?: string;
  /** Further headers. Values are visible ASCII, spaces and tabs; anything else is a dead letter `plugin_output`. */
  headers?: Record<string, string>;
}

export interface Webhook {
  endpoint: string | null;
  key: string | null;
  contentType: string | null;
  headers: [string, string][];
  body: Uint8Array;
}

/** Made by `retry` and `reject`; to be thrown. */
export class Failure extends Error {
  private constructor();
  readonly tag: "retry" | "reject";
}

/** `throw retry("…")`: it may work later; the run is tried again. */
export function retry(message: string): Failure;
/** `throw reject("…")`: it will never work; the run is a dead letter. An event that is not wanted is `[]` instead. */
export function reject(message: string): Failure;

export const webhook: {
  /** A webhook whose body is `value` as compact JSON. */
  json(value: unknown, options?: WebhookOptions): Webhook;
  bytes(body: string | Uint8Array, options?: WebhookOptions): Webhook;
};

export type Level = "trace" | "debug" | "info" | "warn" | "error";
export const log: Record<Level, (message: string) => void>;

export const config: {
  get(name: string): string | undefined;
  all(): Record<string, string>;
};

/** What a plugin exports as `onEvent`. */
export type OnEvent<T = any> = (event: Event<T>) => Webhook[];
