// Judges webhooks with the libraries that receivers use. Reads JSON lines, each with `judge`, `headers`, `body_base64` and
// `secret`; prints `ok`, or why not, for each.

import { createPublicKey, verify } from "node:crypto";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// The libraries are where `cargo xtask setup` put them, which the first argument says.
const installed = createRequire(`${process.argv[2]}/package.json`);
const load = async (name) => await import(pathToFileURL(installed.resolve(name)));
const standard = await load("standardwebhooks");
const { default: Stripe } = await load("stripe");
// It has an entry for `import` alone.
const github = await import(pathToFileURL(`${process.argv[2]}/node_modules/@octokit/webhooks-methods/dist-node/index.js`));

const judges = {
  standardwebhooks({ headers, body, secret }) {
    const Webhook = standard.Webhook ?? standard.default.Webhook;
    new Webhook(secret).verify(body, headers);
  },
  stripe({ headers, body, secret, header }) {
    new Stripe("sk_test_unused").webhooks.constructEvent(body, headers[header], secret);
  },
  async github({ headers, body, secret }) {
    if (!(await github.verify(secret, body.toString(), headers["x-hub-signature-256"]))) {
      throw new Error("verify() says false");
    }
  },
  // No library of Standard Webhooks knows v1a: this is its specification on node's own ed25519.
  ed25519({ headers, body, secret }) {
    const raw = Buffer.from(secret.slice("whpk_".length), "base64");
    const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") }, format: "jwk" });
    const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
    const signatures = headers["webhook-signature"].split(" ").filter((one) => one.startsWith("v1a,"));
    if (!signatures.some((one) => verify(null, signed, key, Buffer.from(one.slice("v1a,".length), "base64")))) {
      throw new Error("no v1a signature is by this key");
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { judge, body_base64, ...rest } = JSON.parse(line);
  try {
    await judges[judge]({ ...rest, body: Buffer.from(body_base64, "base64") });
    console.log("ok");
  } catch (error) {
    console.log(`${judge}: ${String(error.message).split("\n")[0]}`);
  }
}
