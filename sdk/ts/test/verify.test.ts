import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { type Package, verify } from "../src/verify/index.js";

// The fixtures are those of the Go verifier: both must take and refuse the same files.
const testdata = "../go/verify/testdata";
const key = "log.example.com/log/1+4a5917dc+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";
const read = (name: string) => new Uint8Array(readFileSync(`${testdata}/${name}.proof.json`));
const encode = (p: Package) => new TextEncoder().encode(`${JSON.stringify(p, null, 2)}\n`);

for (const name of ["attempt", "dead_letter", "erasure"]) {
  test(`a package of kind ${name} is a full proof`, async () => {
    const report = await verify(read(name), { trustedKeys: [key] });
    assert.deepEqual(report.checks.filter((check) => !check.ok), []);
    assert.equal(report.full, true);
    assert.equal(report.leaf?.["kind"], name);
    assert.equal(report.headTime?.toISOString(), "2026-03-04T05:06:07.000Z");
    // What was checked is what the Go verifier says that it checked.
    const golden = readFileSync(`${testdata}/${name}.txt`, "utf8");
    for (const check of report.checks) assert.ok(golden.includes(check.detail), check.detail);
  });
}

test("without a key it is only consistent", async () => {
  const report = await verify(read("attempt"));
  assert.equal(report.full, false);
  assert.equal(report.level, "consistent, but the key is not checked");
});

test("every flipped byte is refused, and every byte left out", async () => {
  const data = read("attempt");
  for (let i = 0; i < data.length; i++) {
    for (const bits of [1, 32]) {
      const changed = data.slice();
      changed[i]! ^= bits;
      assert.equal((await verify(changed, { trustedKeys: [key] })).level, "refused", `byte ${i} flipped by ${bits}`);
    }
    const shorter = new Uint8Array([...data.subarray(0, i), ...data.subarray(i + 1)]);
    assert.equal((await verify(shorter, { trustedKeys: [key] })).level, "refused", `byte ${i} left out`);
  }
});

test("what is wrong is named", async () => {
  const whole = JSON.parse(new TextDecoder().decode(read("attempt"))) as Package;
  const cases: [string, (p: Package) => void, string][] = [
    ["format", (p) => (p.format = "kapsel-proof/v2"), "format"],
    ["upper case", (p) => (p.root_hash = p.root_hash.toUpperCase()), "format"],
    ["a path that is too long", (p) => (p.audit_path = Array(65).fill(p.root_hash)), "format"],
    ["a leaf beyond the tree", (p) => (p.leaf_index = 40), "format"],
    ["a huge tree", (p) => (p.tree_size = 2 ** 53), "format"],
    ["other leaf bytes", (p) => (p.leaf = p.leaf.slice(2)), "leaf hash"],
    ["a nicer outcome", (p) => (p.attempt["status_code"] = 204), "leaf"],
    ["another place", (p) => (p.leaf_index = 11), "inclusion"],
    ["a shorter path", (p) => p.audit_path.pop(), "inclusion"],
    ["a longer path", (p) => p.audit_path.push(p.root_hash), "inclusion"],
    ["no key", (p) => (p.public_keys = []), "public keys"],
    ["a key that is none", (p) => (p.public_keys = ["x"]), "public keys"],
    ["another log", (p) => (p.origin = "log.example.com/log/2"), "checkpoint"],
    ["a line twice", (p) => (p.checkpoint += p.checkpoint.split("\n").at(-2) + "\n"), "checkpoint"],
    ["no line of the log", (p) => (p.checkpoint = p.checkpoint.split("\n").filter((_, i) => i !== 4).join("\n")), "signature"],
  ];
  for (const [name, change, check] of cases) {
    const p = structuredClone(whole);
    change(p);
    const report = await verify(encode(p), { trustedKeys: [key] });
    assert.equal(report.level, "refused", name);
    assert.equal(report.checks.at(-1)?.name, check, `${name}: ${report.checks.at(-1)?.detail}`);
  }
});

test("another key of the same name is not trusted", async () => {
  const pair = (await crypto.subtle.generateKey({ name: "Ed25519" }, true, ["sign", "verify"])) as CryptoKeyPair;
  const typed = Buffer.concat([Uint8Array.of(1), new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey))]);
  const name = "log.example.com/log/1";
  const id = createHash("sha256").update(`${name}\n`).update(typed).digest("hex").slice(0, 8);
  const report = await verify(read("attempt"), { trustedKeys: [`${name}+${id}+${typed.toString("base64")}`] });
  assert.equal(report.level, "refused");
  assert.equal(report.checks.at(-1)?.name, "signature");
  for (const bad of ["", "x", `${key}=`, key.toUpperCase(), key.slice(1)]) {
    await assert.rejects(verify(read("attempt"), { trustedKeys: [bad] }), /trusted key/);
  }
});

test("hostile input is refused, and nothing else happens", async () => {
  const text = new TextDecoder().decode(read("attempt"));
  const inputs = [
    "", "null", "[]", "{}\n", "1", '"x"', "[".repeat(100_000), `${" ".repeat(1 << 20)}{}`, text + text, `\ufeff${text}`, text.slice(0, -1),
    text.replace('"origin"', '"__proto__": {}, "origin"'), text.replace(/"leaf": "[^"]*"/, '"leaf": null'), text.replace('"attempt": {', '"attempt": {"__proto__": 1,'),
    text.replace('"audit_path": [', '"audit_path": [1,'), text.replace("log.example.com/log/1", "\\ud800"), text.replace('"number": 2', '"number": 2.0'),
    text.replace(/"attempt": \{[^]*$/, '"attempt": []\n}\n'), text.replace('"leaf_index": 12', '"leaf_index": -0'),
  ].map((input) => new TextEncoder().encode(input));
  inputs.push(Uint8Array.of(0xff, 0xfe), new Uint8Array(1 << 21), crypto.getRandomValues(new Uint8Array(5000)));
  for (const input of inputs) {
    const report = await verify(input, { trustedKeys: [key] });
    assert.equal(report.level, "refused");
    assert.equal(report.full, false);
  }
});
