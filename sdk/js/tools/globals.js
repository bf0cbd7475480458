// What QuickJS lacks and libraries expect. First in the bundle: libraries look for it while they load.
import "core-js/actual/atob";
import "core-js/actual/btoa";
import "core-js/actual/structured-clone";
import "core-js/actual/url";
import "core-js/actual/url-search-params";
import { TextDecoder, TextEncoder } from "./encoding.js";
import { pluginConsole } from "../src/console.js";
import * as deterministic from "../src/deterministic.js";

globalThis.TextEncoder = TextEncoder;
globalThis.TextDecoder = TextDecoder;
globalThis.Date = deterministic.Date;
Math.random = deterministic.random;
globalThis.crypto = { getRandomValues: deterministic.getRandomValues, randomUUID: deterministic.randomUUID };
globalThis.console = pluginConsole;
