// The contract's export, around a plugin's function.
import * as hostConfig from "wirehook:plugin/config@0.1.0";
import * as hostLog from "wirehook:plugin/log@0.1.0";
import { begin } from "../src/deterministic.js";
import { host } from "../src/host.js";
import { Event, Failure, call } from "../src/index.js";
import { mapped } from "./stack.js";

// Also of an error that is only logged the author's own lines are what helps.
host.stack = (error) => mapped(error.stack ?? "", globalThis.wirehookSourceMap);

export function handler(onEvent) {
  return {
    onEvent(raw) {
      host.log = hostLog.log;
      host.config = hostConfig.all;
      begin(raw);
      try {
        return call(onEvent, new Event(raw));
      } catch (error) {
        throw failure(error);
      }
    },
  };
}

function failure(error) {
  if (error instanceof Failure) return { tag: error.tag, val: error.message };
  if (!(error instanceof Error)) return { tag: "reject", val: `uncaught: ${String(error)}` };
  return { tag: "reject", val: `uncaught ${error}\n${host.stack(error)}` };
}
