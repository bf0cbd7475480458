#!/usr/bin/env node
// wirehook-js build OUTPUT.wasm WIT: what `wirehook plugin build` calls, in the project's folder.
import path from "node:path";
import { build } from "./build.js";

const [command, output, wit] = process.argv.slice(2);
if (command !== "build" || !output || !wit) {
  console.error("usage: wirehook-js build OUTPUT.wasm WIT");
  process.exit(2);
}
try {
  await build(process.cwd(), path.resolve(output), path.resolve(wit));
} catch (error) {
  console.error(`wirehook-js: ${error.message}`);
  process.exit(1);
}
