import type { Event, Level, OnEvent, Webhook } from "./index.js";

export interface EventFields {
  key?: string;
  entityId?: string;
  tenantId?: string;
  timestamp?: string;
  attempt?: number;
  entity?: unknown;
  /** Instead of `entity`: its bytes, JSON or not. */
  entityText?: string;
  previous?: unknown;
  attributes?: Record<string, string>;
}
export function event(subject: string, fields?: EventFields): Event;
/** The event that the host makes of a message in one of FraiseQL's formats: an object, or its JSON, whose digits are kept. */
export function fromMessage(message: unknown): Event;
export interface Surroundings {
  config?: Record<string, unknown>;
  /** What the plugin keeps; empty at first. */
  state?: Map<string, Uint8Array>;
  /** Lines that were logged are added. */
  logs?: { level: Level; message: string }[];
}
/** Calls a plugin's function as the host would. Throws what it throws. */
export function call(onEvent: OnEvent, event: Event, surroundings?: Surroundings): Webhook[];
/** A webhook's body as text. */
export function text(webhook: Webhook): string;
