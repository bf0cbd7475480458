// Places in the bundle become places in the author's sources.
import { TraceMap, originalPositionFor } from "@jridgewell/trace-mapping";

/** Frames of a stack that are kept. */
export const FRAMES_MAX = 12;

const PLACE = /\(?(\S+?):(\d+):(\d+)\)?$/;

export function mapped(stack, map) {
  const trace = map && new TraceMap(JSON.parse(map));
  const lines = stack.split("\n").map((line) => line.trim()).filter((line) => line.startsWith("at "));
  const frames = lines.map((line) => (trace ? frame(line, trace) : line)).filter((line) => line);
  return frames.slice(0, FRAMES_MAX).map((line) => `    ${line}`).join("\n");
}

/** The SDK's own frames say nothing to an author. */
function frame(line, trace) {
  const place = PLACE.exec(line);
  if (!place) return line.includes("native") ? "" : line;
  const at = originalPositionFor(trace, { line: Number(place[2]), column: Math.max(0, Number(place[3]) - 1) });
  if (!at.source) return "";
  if (at.source.startsWith("wirehook:")) return "";
  const name = /^at (\S+) \(/.exec(line)?.[1];
  const where = `${at.source}:${at.line}:${at.column + 1}`;
  return name && name !== "<anonymous>" ? `at ${name} (${where})` : `at ${where}`;
}
