import assert from "node:assert/strict";
import { createHmac, generateKeyPairSync, sign } from "node:crypto";
import { test } from "node:test";
import { verifyWebhook, WebhookError } from "../src/webhook.js";

const secret = "whsec_" + Buffer.alloc(32, 7).toString("base64");
const pair = generateKeyPairSync("ed25519");
const publicKey = "whpk_" + pair.publicKey.export({ format: "der", type: "spki" }).subarray(-32).toString("base64");
const body = Buffer.from([0, 255, 10, 123, 125]);
const now = new Date(1_700_000_000_000);

function headers(content = body, stamp = "1700000000") {
  const signed = Buffer.concat([Buffer.from(`evt_1.${stamp}.`), content]);
  const v1 = createHmac("sha256", Buffer.alloc(32, 7)).update(signed).digest("base64");
  const v1a = sign(null, signed, pair.privateKey).toString("base64");
  return { "Webhook-Id": "evt_1", "webhook-timestamp": stamp, "webhook-signature": `v1,AAAA v2,${v1} v1a,${v1a} v1,${v1}` };
}

for (const [name, key] of [["v1", secret], ["v1a", publicKey]] as const) {
  test(`${name}: the exact bytes are verified, and a flipped bit is not`, async () => {
    const webhook = await verifyWebhook({ headers: headers(), body }, [`whsec_${Buffer.alloc(24).toString("base64")}`, key], { now });
    assert.deepEqual(Buffer.from(webhook.body), body);
    assert.equal(webhook.id, "evt_1");
    const flipped = Buffer.from(body);
    flipped[2]! ^= 1;
    await assert.rejects(verifyWebhook({ headers: headers(), body: flipped }, key, { now }), { code: "no_match" });
    await assert.rejects(verifyWebhook({ headers: { ...headers(), "Webhook-Id": "evt_2" }, body }, key, { now }), { code: "no_match" });
  });
}

test("a Request is verified, and read up to a bound", async () => {
  const request = () => new Request("https://x.example/", { method: "POST", body, headers: headers() });
  assert.deepEqual((await verifyWebhook(request(), secret, { now })).text(), body.toString());
  await assert.rejects(verifyWebhook(request(), secret, { now, maxBodyBytes: 4 }), { code: "too_large" });
  const used = request();
  await used.text();
  await assert.rejects(verifyWebhook(used, secret, { now }), /read already/);
});

test("a body that is not there or was parsed is told from one that is not Kapsel's", async () => {
  for (const wrong of [undefined, null, {}, { a: 1 }]) {
    const webhook = { headers: headers(), body: wrong } as unknown as { headers: Record<string, string>; body: string };
    await assert.rejects(verifyWebhook(webhook, secret, { now }), (error) => error instanceof TypeError && /as they came/.test(error.message));
  }
});

test("headers of another implementation of fetch are read", async () => {
  const others = Object.entries(headers()).map(([name, value]) => [name.toLowerCase(), value] as const);
  const foreign = { get: (name: string) => new Map(others).get(name) ?? null } as unknown as Headers;
  assert.equal((await verifyWebhook({ headers: foreign, body }, secret, { now })).id, "evt_1");
});

test("time is held to the tolerance on both sides", async () => {
  const at = (seconds: number) => verifyWebhook({ headers: headers(), body }, secret, { now: new Date(now.getTime() + seconds * 1000) });
  await at(300);
  await at(-300);
  await assert.rejects(at(301), { code: "too_old" });
  await assert.rejects(at(-301), { code: "too_new" });
});

test("hostile headers get a WebhookError and nothing else", async () => {
  for (const change of [
    { "Webhook-Id": "" }, { "webhook-timestamp": "" }, { "webhook-signature": "" },
    { "webhook-timestamp": "1e9" }, { "webhook-timestamp": "-1" }, { "webhook-timestamp": "9".repeat(400) },
    { "webhook-signature": "v1" }, { "webhook-signature": "v1,%%%" }, { "webhook-signature": "v1, v1a," }, { "webhook-signature": "v1,AAAA ".repeat(100_000) },
  ]) {
    await assert.rejects(verifyWebhook({ headers: { ...headers(), ...change }, body }, [secret, publicKey], { now }), WebhookError);
  }
});

test("malformed secrets are told apart from forged webhooks", async () => {
  for (const bad of ["", "whsec_", "whsec_%", "whpk_AAAA", "whsk_AAAA"]) {
    await assert.rejects(verifyWebhook({ headers: headers(), body }, bad, { now }), TypeError);
  }
  await assert.rejects(verifyWebhook({ headers: headers(), body }, [], { now }), TypeError);
});
