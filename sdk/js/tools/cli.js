#!/usr/bin/env node
// What `wirehook plugin build` and a project's tests call, in the project's folder.
import path from "node:path";

const [command, ...words] = process.argv.slice(2);
const isRight = (command === "build" && words.length === 2) || (command === "test" && words.length === 0);
if (!isRight) {
  console.error("usage: cli.js build OUTPUT.wasm WIT | cli.js test");
  process.exit(2);
}
try {
  const tools = await import("./build.js");
  if (command === "build") {
    await tools.build(process.cwd(), ...words.map((word) => path.resolve(word)));
  } else {
    process.exitCode = await tools.test(process.cwd());
  }
} catch (error) {
  console.error(`wirehook: ${error.message}`);
  process.exit(1);
}
