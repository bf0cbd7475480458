// What QuickJS lacks and libraries expect. First in the bundle: libraries look for it while they load. What is
// large comes after it, where the plugin names it: `build.js` has the list.
import { TextDecoder, TextEncoder } from "./encoding.js";
import { pluginConsole } from "../src/console.js";
import * as deterministic from "../src/deterministic.js";

globalThis.TextEncoder = TextEncoder;
globalThis.TextDecoder = TextDecoder;
globalThis.Date = deterministic.Date;
Math.random = deterministic.random;
globalThis.crypto = { getRandomValues: deterministic.getRandomValues, randomUUID: deterministic.randomUUID };
globalThis.performance = deterministic.performance;
globalThis.console = pluginConsole;
