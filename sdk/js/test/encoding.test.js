import assert from "node:assert/strict";
import { test } from "node:test";
import * as ours from "../tools/encoding.js";

test("texts and bytes are as Node has them", () => {
  const encoder = new ours.TextEncoder();
  for (const text of ["", "plain", "ö€😀\u0000", "\ud800x", "x\udc00", "\ufeffmark", "ä".repeat(5000)]) {
    assert.deepEqual(encoder.encode(text), new TextEncoder().encode(text));
    assert.equal(new ours.TextDecoder().decode(encoder.encode(text)), new TextDecoder().decode(encoder.encode(text)));
  }
  const decoders = [new ours.TextDecoder(), new TextDecoder()];
  for (let first = 0x7e; first < 0x100; first += 1) {
    for (const rest of [[], [0x80], [0xa0, 0x80], [0x90, 0x80, 0x80], [0x8f, 0xbf, 0xbf, 0x41], [0xc3, 0xb6], [0x41]]) {
      const [mine, nodes] = decoders.map((decoder) => decoder.decode(Uint8Array.from([first, ...rest])));
      assert.equal(mine, nodes, `${[first, ...rest]}`);
    }
  }
  const fatal = new ours.TextDecoder("UTF-8", { fatal: true });
  assert.throws(() => fatal.decode(Uint8Array.from([0xff])), TypeError);
  assert.deepEqual(encoder.encodeInto("aö", new Uint8Array(2)), { read: 1, written: 1 });
});
