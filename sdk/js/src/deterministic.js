// Time and chance that depend on the event alone, so that a run done again gives the same webhooks.

export const RANDOM_BYTES_MAX = 65536;

const RealDate = globalThis.Date;
let event = { key: "", timestamp: undefined };
/** Known once it was asked for: most calls ask for neither. */
let time;
let generate;

/** The event's time and seed hold from here on; without a readable timestamp the time is 1970. */
export function begin(given) {
  event = given;
  time = undefined;
  generate = undefined;
}

function now() {
  if (time === undefined) {
    const parsed = RealDate.parse(event.timestamp ?? "");
    time = Number.isNaN(parsed) ? 0 : parsed;
  }
  return time;
}

function next() {
  generate ??= generator(event.key);
  return generate();
}

function PluginDate(...parts) {
  if (!new.target) return new RealDate(now()).toString();
  return Reflect.construct(RealDate, parts.length ? parts : [now()], new.target);
}
Object.setPrototypeOf(PluginDate, RealDate);
PluginDate.prototype = Object.create(RealDate.prototype, { constructor: { value: PluginDate, writable: true } });
PluginDate.now = now;
PluginDate.parse = RealDate.parse;
PluginDate.UTC = RealDate.UTC;
Object.defineProperty(PluginDate, "length", { value: 7 });
Object.defineProperty(PluginDate, "name", { value: "Date" });
Object.defineProperty(PluginDate, Symbol.hasInstance, { value: (value) => RealDate.prototype.isPrototypeOf(value) });

export { PluginDate as Date };

/** No time passes within a call. */
export const performance = {
  now: () => 0,
  get timeOrigin() {
    return now();
  },
};

export const random = () => next() / 2 ** 32;

export function getRandomValues(array) {
  const isInteger = ArrayBuffer.isView(array) && !/Float|DataView/.test(Object.prototype.toString.call(array));
  if (!isInteger) throw new TypeError("getRandomValues: give it an array of integers, such as a Uint8Array");
  if (array.byteLength > RANDOM_BYTES_MAX) throw new RangeError(`getRandomValues: at most ${RANDOM_BYTES_MAX} bytes`);
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  for (let index = 0; index < bytes.length; index += 1) bytes[index] = next() >>> 24;
  return array;
}

export function randomUUID() {
  const bytes = getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** sfc32, seeded by cyrb128 of the key: both in the public domain. Not for secrets: a plugin has none. */
function generator(key) {
  let [a, b, c, d] = seeds(key);
  const step = () => {
    const sum = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let round = 0; round < 12; round += 1) step();
  return step;
}

function seeds(key) {
  let [h1, h2, h3, h4] = [1779033703, 3144134277, 1013904242, 2773480762];
  for (let index = 0; index < key.length; index += 1) {
    const code = key.charCodeAt(index);
    h1 = h2 ^ Math.imul(h1 ^ code, 597399067);
    h2 = h3 ^ Math.imul(h2 ^ code, 2869860233);
    h3 = h4 ^ Math.imul(h3 ^ code, 951274213);
    h4 = h1 ^ Math.imul(h4 ^ code, 2716044179);
  }
  return [h1 ^ h2 ^ h3 ^ h4, h2 ^ h1, h3 ^ h1, h4 ^ h1];
}
