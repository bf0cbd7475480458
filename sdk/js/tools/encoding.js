// `TextEncoder` and `TextDecoder` for UTF-8, as the web has them. What QuickJS does natively goes by way of base64 and
// percent signs, many times faster than a loop over the bytes; the loops are for what is not well formed, and for Node.

/** Whether the engine has bytes from base64 and back. */
const IS_NATIVE = typeof Uint8Array.fromBase64 === "function";
const NOT_ASCII = /[^\0-\x7f]/;

/** Units that one call of `fromCharCode` is given. */
const UNITS_MAX = 4096;
const REPLACEMENT = 0xfffd;

class TextEncoder {
  get encoding() {
    return "utf-8";
  }

  encode(given = "") {
    const text = String(given);
    if (IS_NATIVE) {
      const binary = NOT_ASCII.test(text) ? unescape(encodeURIComponent(text.toWellFormed())) : text;
      return Uint8Array.fromBase64(btoa(binary));
    }
    // Three bytes a unit are enough: a pair of units makes four.
    const bytes = new Uint8Array(text.length * 3);
    return bytes.slice(0, this.encodeInto(text, bytes).written);
  }

  encodeInto(given, bytes) {
    const text = String(given);
    let [read, written] = [0, 0];
    while (read < text.length) {
      const point = text.codePointAt(read);
      const isLone = point >= 0xd800 && point <= 0xdfff;
      const next = encodePoint(isLone ? REPLACEMENT : point, bytes, written);
      if (next < 0) break;
      written = next;
      read += point > 0xffff ? 2 : 1;
    }
    return { read, written };
  }
}

/** Where the next begins; -1 where there is no room. */
function encodePoint(point, bytes, at) {
  const length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
  if (at + length > bytes.length) return -1;
  if (length === 1) {
    bytes[at] = point;
    return at + 1;
  }
  bytes[at] = [0, 0, 0xc0, 0xe0, 0xf0][length] | (point >> (6 * (length - 1)));
  for (let index = 1; index < length; index += 1) bytes[at + index] = 0x80 | ((point >> (6 * (length - 1 - index))) & 0x3f);
  return at + length;
}

class TextDecoder {
  constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    if (!/^\s*(unicode-1-1-)?utf-?8\s*$/i.test(label)) throw new RangeError(`TextDecoder: only utf-8, not ${label}`);
    this.encoding = "utf-8";
    this.fatal = Boolean(fatal);
    this.ignoreBOM = Boolean(ignoreBOM);
  }

  decode(given = new Uint8Array(), { stream = false } = {}) {
    if (stream) throw new TypeError("TextDecoder: a plugin has its bytes at once; leave `stream` out");
    const bytes = ArrayBuffer.isView(given)
      ? new Uint8Array(given.buffer, given.byteOffset, given.byteLength)
      : new Uint8Array(given);
    const hasMark = !this.ignoreBOM && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    return decodeFrom(bytes, hasMark ? 3 : 0, this.fatal);
  }
}

function decodeFrom(bytes, start, fatal) {
  const text = IS_NATIVE ? decodeWellFormed(bytes.subarray(start)) : undefined;
  return text ?? decodeAny(bytes, start, fatal);
}

/** Undefined where it is not well formed. */
function decodeWellFormed(bytes) {
  const binary = atob(bytes.toBase64());
  if (!NOT_ASCII.test(binary)) return binary;
  try {
    return decodeURIComponent(escape(binary));
  } catch {
    return undefined;
  }
}

function decodeAny(bytes, start, fatal) {
  let text = "";
  let units = [];
  for (let at = start; at < bytes.length; ) {
    let point = bytes[at];
    let length = 1;
    if (point >= 0x80) {
      [point, length] = decodePoint(bytes, at);
      if (point < 0) {
        if (fatal) throw new TypeError("TextDecoder: the bytes are not UTF-8");
        point = REPLACEMENT;
      }
    }
    if (point > 0xffff) units.push(0xd800 + ((point - 0x10000) >> 10), 0xdc00 + ((point - 0x10000) & 0x3ff));
    else units.push(point);
    at += length;
    if (units.length >= UNITS_MAX) {
      text += String.fromCharCode(...units);
      units = [];
    }
  }
  return text + String.fromCharCode(...units);
}

/** A code point and its length; -1 and what is to be passed over, where it is none. By the table of Unicode 3-7. */
function decodePoint(bytes, at) {
  const lead = bytes[at];
  const length = lead >= 0xc2 && lead <= 0xdf ? 2 : (lead & 0xf0) === 0xe0 ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
  if (length === 0) return [-1, 1];
  const low = { 0xe0: 0xa0, 0xf0: 0x90 }[lead] ?? 0x80;
  const high = { 0xed: 0x9f, 0xf4: 0x8f }[lead] ?? 0xbf;
  let point = lead & (0x7f >> length);
  for (let index = 1; index < length; index += 1) {
    const byte = bytes[at + index];
    const isIn = index === 1 ? byte >= low && byte <= high : byte >= 0x80 && byte <= 0xbf;
    if (!isIn) return [-1, index];
    point = (point << 6) | (byte & 0x3f);
  }
  return [point, length];
}

export { TextDecoder, TextEncoder };
