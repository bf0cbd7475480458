// From a plugin's source to a component: esbuild bundles it, componentize-qjs puts QuickJS around it.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { PACKAGES, TOOLS, require } from "./packages.js";

const esbuild = require("esbuild");
const { TraceMap, decodedMappings } = require("@jridgewell/trace-mapping");

const SDK = path.dirname(TOOLS);
const ENTRIES = ["src/plugin.ts", "src/plugin.js"];
const ENTRY_NAME = "wirehook-entry.js";
/** What QuickJS lacks, and where it is. It is large, and a fresh sandbox pays for its memory: who names it has it. */
const POLYFILLS = {
  structuredClone: "core-js/actual/structured-clone",
  URL: "core-js/actual/url",
  URLSearchParams: "core-js/actual/url-search-params",
};

/** Builds the plugin in `folder` into `output`, by the contract in the file `wit`. */
export async function build(folder, output, wit) {
  const entry = ENTRIES.map((name) => path.join(folder, name)).find((name) => existsSync(name));
  if (!entry) throw new Error(`${folder} has no ${ENTRIES.join(" or ")}: put the plugin's onEvent there`);
  await mkdir(path.dirname(output), { recursive: true });
  const script = output.replace(/(\.wasm)?$/, ".js");
  const options = {
    absWorkingDir: folder,
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    target: "es2023",
    // Neither a browser's nor Node's: a library that needs either is told of at build time.
    platform: "neutral",
    mainFields: ["module", "main"],
    conditions: ["import", "default"],
    external: ["wirehook:plugin/*"],
    nodePaths: [PACKAGES],
    plugins: [sdk({ "wirehook": "src/index.js", "wirehook/state": "tools/state.js" })],
    sourcesContent: false,
    outfile: script,
  };
  const bundle = (polyfills, more) => {
    const stdin = { contents: wrapper(entry, polyfills), resolveDir: folder, sourcefile: ENTRY_NAME };
    return esbuild.build({ ...options, stdin, ...more });
  };
  const looked = await bundle([], { logLevel: "silent" });
  const polyfills = await named(Object.keys(POLYFILLS), Object.keys(looked.metafile.inputs), folder);
  const result = await bundle(polyfills, { sourcemap: "external", logLevel: "warning" });
  const text = (suffix) => result.outputFiles.find((file) => file.path.endsWith(suffix)).text;
  // After the code, so that it moves no line of it.
  const map = compact(JSON.parse(text(".js.map")), path.dirname(script), folder);
  await writeFile(script, `${text(".js")}\nglobalThis.wirehookSourceMap = ${JSON.stringify(map)};\n`);
  const hasState = Object.values(result.metafile.outputs).some((one) =>
    one.imports.some((imported) => imported.path.startsWith("wirehook:plugin/state")),
  );
  await componentize(script, wit, hasState ? "all-capabilities" : "subscriber", output);
}

/** Bundles the tests in `folder`, which may be in TypeScript, and has Node run them. Ends with Node's exit code. */
export async function test(folder) {
  const names = await readdir(path.join(folder, "test"));
  const tests = names.filter((name) => /\.test\.(ts|js)$/.test(name)).map((name) => path.join(folder, "test", name));
  if (!tests.length) throw new Error(`${folder} has no test/*.test.ts: put the tests there`);
  const output = path.join(folder, "build/tests");
  await esbuild.build({
    entryPoints: tests,
    absWorkingDir: folder,
    bundle: true,
    format: "esm",
    platform: "node",
    outdir: output,
    outExtension: { ".js": ".mjs" },
    plugins: [sdk({ "wirehook": "src/index.js", "wirehook/state": "src/state.js", "wirehook/test": "src/test.js" })],
    sourcemap: "linked",
    logLevel: "warning",
  });
  const built = tests.map((file) => path.join(output, path.basename(file).replace(/\.(ts|js)$/, ".mjs")));
  try {
    const child = promisify(execFile)(process.execPath, ["--enable-source-maps", "--test", ...built], { cwd: folder });
    process.stdout.write((await child).stdout);
    return 0;
  } catch (error) {
    process.stdout.write(error.stdout ?? "");
    process.stderr.write(error.stderr ?? error.message);
    return 1;
  }
}

/** Those of `names` that the plugin's sources or its libraries have anywhere. */
async function named(names, inputs, folder) {
  const files = inputs.map((input) => path.resolve(folder, input)).filter((file) => existsSync(file) && !isOurs(file));
  const texts = await Promise.all(files.map((file) => readFile(file, "utf8")));
  return names.filter((name) => texts.some((text) => new RegExp(`\\b${name}\\b`).test(text)));
}

/** Whether it is the SDK's, or one of the packages that a build needs. */
function isOurs(file) {
  const isWithin = (parent) => file.startsWith(parent + path.sep);
  return path.basename(file) === ENTRY_NAME || isWithin(SDK) || isWithin(PACKAGES);
}

const wrapper = (entry, polyfills) => `
import ${JSON.stringify(path.join(TOOLS, "globals.js"))};
${polyfills.map((name) => `import ${JSON.stringify(POLYFILLS[name])};`).join("\n")}
import * as plugin from ${JSON.stringify(entry)};
import { handler as make } from ${JSON.stringify(path.join(TOOLS, "guest.js"))};
export const handler = make(plugin.onEvent);
`;

/** The SDK by its names, wherever the project has it. */
function sdk(files) {
  return {
    name: "wirehook",
    setup(builder) {
      builder.onResolve({ filter: /^wirehook(\/.*)?$/ }, ({ path: name }) =>
        files[name]
          ? { path: path.join(SDK, files[name]) }
          : { errors: [{ text: `a plugin can't import ${name}; there are ${Object.keys(files).join(", ")}` }] },
      );
    },
  };
}

/** What `stack.js` reads: the lines that are the author's, told from the project's folder. */
function compact(map, from, folder) {
  const sources = map.sources.map((source) => {
    const file = path.resolve(from, source);
    return isOurs(file) ? null : path.relative(folder, file).split(path.sep).join("/");
  });
  const lines = {};
  decodedMappings(new TraceMap(map)).forEach((segments, line) => {
    const own = segments.filter(([, source]) => source !== undefined && sources[source] !== null);
    const told = own.map(([column, source, original, at]) => [column, source, original + 1, at + 1].join());
    if (told.length) lines[line + 1] = told.join(";");
  });
  return { sources, lines };
}

async function componentize(script, wit, world, output) {
  const cli = path.join(PACKAGES, "componentize-qjs/cli.mjs");
  const parts = ["--wit", wit, "-n", world, "--js", script, "--sync", "--stub-wasi", "-o", output];
  try {
    await promisify(execFile)(process.execPath, [cli, ...parts], { cwd: path.dirname(script) });
  } catch (error) {
    throw new Error(`componentize-qjs could not run ${script} to its end: ${error.stderr || error.message}`);
  }
}
