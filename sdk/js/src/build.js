// From a plugin's source to a component: esbuild bundles it, componentize-qjs puts QuickJS around it.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { promisify } from "node:util";
import { build as bundle } from "esbuild";

const SDK = path.dirname(fileURLToPath(import.meta.url));
const ENTRIES = ["src/plugin.ts", "src/plugin.js"];

/** Builds the plugin in `folder` into `output`, by the contract in the file `wit`. */
export async function build(folder, output, wit) {
  const entry = ENTRIES.map((name) => path.join(folder, name)).find((name) => existsSync(name));
  if (!entry) throw new Error(`${folder} has no ${ENTRIES.join(" or ")}: put the plugin's onEvent there`);
  await mkdir(path.dirname(output), { recursive: true });
  const script = output.replace(/(\.wasm)?$/, ".js");
  const result = await bundle({
    stdin: { contents: wrapper(entry), resolveDir: folder, sourcefile: "wirehook-entry.js" },
    absWorkingDir: folder,
    bundle: true,
    write: false,
    format: "esm",
    target: "es2023",
    // What is no browser's and no Node's: a library that needs either is told of at build time.
    platform: "neutral",
    mainFields: ["module", "main"],
    conditions: ["import", "default"],
    external: ["wirehook:plugin/*"],
    sourcemap: "external",
    sourcesContent: false,
    outfile: script,
    logLevel: "warning",
  });
  const text = (suffix) => result.outputFiles.find((file) => file.path.endsWith(suffix)).text;
  // After the code, so that it moves no line of it.
  const map = compact(JSON.parse(text(".js.map")), path.dirname(script), folder);
  await writeFile(script, `${text(".js")}\nglobalThis.wirehookSourceMap = ${JSON.stringify(map)};\n`);
  await componentize(script, wit, output);
}

const wrapper = (entry) => `
import ${JSON.stringify(path.join(SDK, "globals.js"))};
import * as plugin from ${JSON.stringify(entry)};
import { handler as make } from ${JSON.stringify(path.join(SDK, "guest.js"))};
export const handler = make(plugin.onEvent);
`;

/** Names are in the stack already; sources are told from the project's folder. */
function compact(map, from, folder) {
  const sources = map.sources.map((source) => {
    const file = path.resolve(from, source);
    const isSdks = file === path.join(folder, "wirehook-entry.js") || file.startsWith(SDK + path.sep);
    return isSdks ? `wirehook-sdk:${path.basename(file)}` : path.relative(folder, file).split(path.sep).join("/");
  });
  return { version: 3, sources, names: [], mappings: map.mappings };
}

async function componentize(script, wit, output) {
  const cli = path.join(path.dirname(createRequire(import.meta.url).resolve("componentize-qjs")), "cli.mjs");
  const parts = ["--wit", wit, "-n", "subscriber", "--js", script, "--sync", "--stub-wasi", "-o", output];
  try {
    await promisify(execFile)(process.execPath, [cli, ...parts], { cwd: path.dirname(script) });
  } catch (error) {
    throw new Error(`componentize-qjs could not run ${script} to its end: ${error.stderr || error.message}`);
  }
  if (!(await readFile(output)).length) throw new Error(`componentize-qjs wrote nothing to ${output}`);
}
