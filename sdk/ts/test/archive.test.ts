import assert from "node:assert/strict";
import { createReadStream, mkdtempSync, openAsBlob, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { Readable } from "node:stream";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { isArchive, verifyArchive } from "../src/verify/index.js";

const testdata = "../go/verify/testdata";
const key = "log.example.com/log/1+4a5917dc+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";
const base = readFileSync(`${testdata}/archive.tar`);
const whole = new Uint8Array(gzipSync(base));
const trusted = { trustedKeys: [key] };

test("an archive is a full proof of each of its records", async () => {
  const names: string[] = [];
  const report = await verifyArchive(whole, { ...trusted, each: (name, one) => void names.push(`${name} ${one.level}`) });
  assert.deepEqual(names, [3, 5, 12].map((leaf) => `proofs/${String(leaf).padStart(16, "0")}.proof.json full proof`));
  assert.deepEqual(report, {
    full: true, level: "full proof", packages: 3, succeeded: 3, failed: 0, unknown: 0, deadLetters: 0, erasedLeaves: 0,
    first: "2026-03-04T05:05:59.000000000Z", last: "2026-03-04T05:05:59.000000000Z", headTime: new Date("2026-03-04T05:06:07Z"),
    tree: { origin: "log.example.com/log/1", size: 40, rootHash: report.tree?.rootHash ?? "" },
    manifest: { format: "kapsel-proofs/v1", packages: 3, origin: "log.example.com/log/1", tree_size: 40, from: "2026-03-04T05:06:07Z", to: "" },
  });
  assert.ok(isArchive(whole) && !isArchive(new Uint8Array(base)) && !isArchive(new Uint8Array([0x1f])));
});

test("a file is read as a Blob, and as a stream", async () => {
  const path = `${mkdtempSync(`${tmpdir()}/kapsel-`)}/proofs.tar.gz`;
  writeFileSync(path, whole);
  assert.ok((await verifyArchive(await openAsBlob(path), trusted)).full);
  const stream = Readable.toWeb(createReadStream(path, { highWaterMark: 100 })) as ReadableStream<Uint8Array>;
  assert.ok((await verifyArchive(stream, trusted)).full);
});

test("the archives of the Go verifier have the same end", async () => {
  const cases = JSON.parse(readFileSync(`${testdata}/archives.json`, "utf8")) as {
    name: string; at: number; drop: number; put: string; trusted: string[]; level: string; check?: string;
  }[];
  assert.ok(cases.length > 70, `${cases.length} cases`);
  for (const c of cases) {
    const tar = Buffer.concat([base.subarray(0, c.at), Buffer.from(c.put, "base64"), base.subarray(c.at + c.drop)]);
    const report = await verifyArchive(new Uint8Array(gzipSync(tar)), { trustedKeys: c.trusted });
    assert.equal(report.level, c.level, `${c.name}: ${report.refusal?.detail}`);
    assert.equal(report.full, c.level === "full proof", c.name);
    assert.equal(report.refusal?.check, c.check, `${c.name}: ${report.refusal?.detail}`);
  }
});

test("what is cut short, or no archive, is refused", async () => {
  for (let length = 0; length < whole.length - 200; length += 61) {
    const report = await verifyArchive(whole.slice(0, length), trusted);
    assert.equal(report.level, "refused", `${length} bytes`);
    assert.match(report.refusal?.detail ?? "", /not a compressed archive|breaks off|cut short/);
  }
  for (const data of [new Uint8Array(base), new Uint8Array(), new TextEncoder().encode("{}"), new Uint8Array([0x1f, 0x8b, 8])]) {
    assert.match((await verifyArchive(data, trusted)).refusal?.detail ?? "", /not a compressed archive/);
  }
});

test("what is not what was packed is refused", async () => {
  // Larger than what is unpacked at once, so that all packages are read before the end is.
  const large = new Uint8Array(gzipSync(Buffer.concat([base, Buffer.alloc(256 << 10)]), { level: 0 }));
  assert.equal((await verifyArchive(large, trusted)).level, "full proof");
  for (const at of [large.length - 8, large.length - 1]) {
    const changed = large.slice();
    changed[at]! ^= 1;
    assert.match((await verifyArchive(changed, trusted)).refusal?.detail ?? "", /breaks off/);
  }
  assert.match((await verifyArchive(large.slice(0, -4), trusted)).refusal?.detail ?? "", /breaks off/);
});

test("a bomb is refused without being unpacked", async () => {
  const zeros = new Uint8Array(gzipSync(Buffer.alloc(64 << 20), { level: 9 }));
  assert.match((await verifyArchive(zeros, trusted)).refusal?.detail ?? "", /no manifest/);
  let pulled = 0;
  const endless = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new Uint8Array(gzipSync(base.subarray(0, 512 + 2000)))),
    pull: (controller) => {
      pulled++;
      controller.enqueue(zeros);
    },
  });
  assert.equal((await verifyArchive(endless, trusted)).level, "refused");
  assert.ok(pulled < 100, `${pulled} chunks were read`);
});

test("what is thrown for a package ends it, and a malformed key is thrown", async () => {
  await assert.rejects(verifyArchive(whole, { each: () => Promise.reject(new Error("enough")) }), /enough/);
  await assert.rejects(verifyArchive(whole, { trustedKeys: ["no key"] }), /the trusted key "no key"/);
});
