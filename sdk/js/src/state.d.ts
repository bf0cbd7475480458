/**
 * A small keyed store of the plugin's own, kept over events, restarts and new builds: `import * as state from
 * "wirehook/state"`. Needs the grant `state`. What a call writes is kept together with the webhooks it returns, or not at all.
 */

/** Why a value was not kept; nothing was changed. */
export class Refused extends Error {
  readonly reason: "key" | "value" | "full";
}
export function get(key: string): Uint8Array | undefined;
/** As `get`, read as UTF-8. */
export function getText(key: string): string | undefined;
/** Keeps a value of 64 KiB at most under a key of 1 to 256 bytes. Throws `Refused`. */
export function set(key: string, value: string | Uint8Array): void;
declare function remove(key: string): void;
export { remove as delete };
