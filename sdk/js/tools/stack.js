// Places in the bundle become places in the author's sources. `build.js` leaves the author's lines only, each to be read
// when it is asked for: a call that fails has a deadline too.

/** Frames of a stack that are kept. */
export const FRAMES_MAX = 12;

const PLACE = /\(?([^\s()]+?):(\d+):(\d+)\)?$/;

/** The frames of `stack` by the sources of `map`: `{ sources, lines: { line: "column,source,line,column;…" } }`. */
export function mapped(stack, map) {
  const lines = stack.split("\n").map((line) => line.trim()).filter((line) => line.startsWith("at "));
  const frames = lines.map((line) => frame(line, map)).filter((line) => line);
  return frames.slice(0, FRAMES_MAX).map((line) => `    ${line}`).join("\n");
}

/** The SDK's own frames, and the engine's, say nothing to an author. */
function frame(line, map) {
  const place = PLACE.exec(line);
  const at = place && original(map, place[2], Number(place[3]) - 1);
  if (!at) return "";
  const name = /^at (\S+) \(/.exec(line)?.[1];
  return name && name !== "<anonymous>" ? `at ${name} (${at})` : `at ${at}`;
}

/** The last segment that begins no later than the column. */
function original(map, line, column) {
  const segments = (map.lines[line] ?? "").split(";").map((segment) => segment.split(",").map(Number));
  const found = segments.findLast(([from, source]) => from <= column && source !== undefined) ?? segments[0];
  if (found.length < 4) return "";
  return `${map.sources[found[1]]}:${found[2]}:${found[3]}`;
}
