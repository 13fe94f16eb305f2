import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const sdk = join(dirname(fileURLToPath(import.meta.url)), "../src");

/** What a browser has to load for a program of one import. */
async function bundle(code: string): Promise<string> {
  const result = await build({
    stdin: { contents: code, resolveDir: sdk, loader: "js" },
    bundle: true, minify: true, write: false, format: "esm", platform: "browser",
  });
  return result.outputFiles[0]!.text;
}

test("an import brings what it needs and no more", async () => {
  const webhook = await bundle(`import { verifyWebhook } from "./webhook.js"; console.log(verifyWebhook)`);
  assert.ok(webhook.length < 4_000, `the webhook receiver has ${webhook.length} bytes`);
  const one = await bundle(`import { createClient } from "@connectrpc/connect"; import { createKapselTransport, IngestService } from "./index.js";
    console.log(createClient(IngestService, createKapselTransport({ baseUrl: "https://x.example" })))`);
  const all = await bundle(`import { createKapsel } from "./index.js"; console.log(createKapsel)`);
  assert.ok(one.length < all.length - 20_000, `one service has ${one.length} bytes, all have ${all.length}`);
  assert.ok(all.length < 220_000, `all services have ${all.length} bytes`);
  assert.ok(!/\bnode:|require\(/.test(all), "the browser's bundle asks for Node.js");
});
