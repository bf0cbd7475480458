// JSON whose numbers keep their digits. QuickJS has what this takes: the source of a number as it is read, and raw JSON
// as it is written. Where an engine lacks them, as Node 20 does, a number becomes a text that begins with a mark, JSON's
// own functions do the work, and the mark is taken off again; texts that begin with the mark's first character are marked
// as texts.

const TEXT_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
const TEXT = /"(?:[^"\\]|\\.)*"/g;
const ESCAPED = "\\u0000";
const CHARACTER = "\0";
const MARKED = /^"(?:\\u0000|\0)/;
const IS_NATIVE = typeof JSON.rawJSON === "function";
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;

/** Set where a value that is being written has a number with its digits. */
let isExact = false;

/** A number as it is written in JSON. */
export class JsonNumber {
  constructor(text) {
    if (!NUMBER.test(text)) throw new TypeError(`JsonNumber: ${text} is no number of JSON`);
    this.text = String(text);
    Object.freeze(this);
  }

  valueOf() {
    return Number(this.text);
  }

  toString() {
    return this.text;
  }

  toJSON() {
    if (IS_NATIVE) return JSON.rawJSON(this.text);
    isExact = true;
    return `${CHARACTER}n${this.text}`;
  }
}

/** As `JSON.parse`, with every number a `JsonNumber`. */
export function parseExact(text) {
  if (IS_NATIVE) {
    return JSON.parse(text, (_, value, { source }) => (typeof value === "number" ? new JsonNumber(source) : value));
  }
  JSON.parse(text);
  const marked = text.replace(TEXT_OR_NUMBER, (token) => {
    if (token[0] !== '"') return `"${ESCAPED}n${token}"`;
    return MARKED.test(token) ? `"${ESCAPED}s${token.slice(1)}` : token;
  });
  return JSON.parse(marked, (_, value) => {
    if (typeof value !== "string" || value[0] !== CHARACTER) return value;
    return value[1] === "n" ? new JsonNumber(value.slice(2)) : value.slice(2);
  });
}

/** As `JSON.stringify`, with every `JsonNumber` as it is written. */
export function stringify(value) {
  if (IS_NATIVE) return JSON.stringify(value);
  isExact = false;
  const text = JSON.stringify(value);
  if (!isExact) return text;
  const marked = JSON.stringify(value, function mark(name, given) {
    if (typeof given !== "string" || given[0] !== CHARACTER || this[name] instanceof JsonNumber) return given;
    return `${CHARACTER}s${given}`;
  });
  return marked.replace(TEXT, (token) => {
    if (!token.startsWith(`"${ESCAPED}`)) return token;
    return token[7] === "n" ? token.slice(8, -1) : `"${token.slice(8)}`;
  });
}
