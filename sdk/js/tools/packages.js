// Where the packages are that a build needs: beside this file, or in one of the folders of $WIREHOOK_TOOLS.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const TOOLS = path.dirname(fileURLToPath(import.meta.url));

function folders() {
  const listed = (process.env.WIREHOOK_TOOLS ?? "").split(path.delimiter).filter((folder) => folder.endsWith(".bin"));
  return [path.join(TOOLS, "node_modules"), ...listed.map((folder) => path.dirname(folder))];
}

/** The folder `node_modules` that has them. */
export const PACKAGES = folders().find((folder) => existsSync(path.join(folder, "componentize-qjs")));

if (PACKAGES === undefined) {
  throw new Error(`the packages that build a plugin are missing: run \`npm ci --prefix ${TOOLS}\``);
}

export const require = createRequire(path.join(PACKAGES, "wirehook.js"));
