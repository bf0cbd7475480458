// `console` in the host's log.
import { host } from "./host.js";

const LEVELS = { trace: "trace", debug: "debug", log: "info", info: "info", warn: "warn", error: "error" };

export const pluginConsole = Object.fromEntries(
  Object.entries(LEVELS).map(([name, level]) => [name, (...parts) => host.log(level, parts.map(text).join(" "))]),
);

function text(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) {
    const stack = host.stack(value);
    // Some engines begin it with the error.
    return !stack || stack.startsWith(String(value)) ? stack || String(value) : `${value}\n${stack}`;
  }
  try {
    return (typeof value === "object" && JSON.stringify(value)) || String(value);
  } catch {
    return String(value);
  }
}
