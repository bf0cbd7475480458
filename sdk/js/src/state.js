// A small keyed store of the plugin's own. In a component, `tools/state.js` stands in for the test's map.
import { host } from "./host.js";

const KEY_BYTES_MAX = 256;
const VALUE_BYTES_MAX = 64 * 1024;

/** Why a value was not kept; nothing was changed. */
export class Refused extends Error {
  constructor(reason) {
    super(MESSAGES[reason] ?? `the state refused: ${reason}`);
    this.name = "Refused";
    this.reason = reason;
  }
}

const MESSAGES = {
  key: "a key of the state has 1 to 256 bytes",
  value: "a value of the state has 64 KiB at most",
  full: "the state is full: 10,000 keys, 16 MiB",
};

const bytesOf = (value) => (typeof value === "string" ? new TextEncoder().encode(value) : value);

const map = {
  get: (key) => host.state?.get(key),
  set(key, value) {
    const length = bytesOf(key).length;
    if (length < 1 || length > KEY_BYTES_MAX) throw new Refused("key");
    if (value.length > VALUE_BYTES_MAX) throw new Refused("value");
    host.state?.set(key, value);
  },
  delete: (key) => void host.state?.delete(key),
};
const store = () => host.store ?? map;

export const get = (key) => store().get(key) ?? undefined;

export function getText(key) {
  const bytes = get(key);
  return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
}

export const set = (key, value) => store().set(key, bytesOf(value));

const remove = (key) => store().delete(key);
export { remove as delete };
