import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { ED25519_TORSION_SUBGROUP, ed25519 } from "@noble/curves/ed25519.js";

import { verifyEd25519 } from "../src/verify/ed25519.js";
import { decodeLeaf, describe } from "../src/verify/leaf.js";
import { followRotations, type Package, verify, verifyTlogProof } from "../src/verify/index.js";

// The fixtures are those of the Go verifier: both must take and refuse the same files.
const testdata = "../go/verify/testdata";
const key = "log.example.com/log/1+4a5917dc+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";
const read = (name: string) => new Uint8Array(readFileSync(`${testdata}/${name}.proof.json`));
const shared = <T>(name: string): T => JSON.parse(readFileSync(`${testdata}/${name}.json`, "utf8")) as T;
const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, "base64"));
const encode = (p: Package) => new TextEncoder().encode(`${JSON.stringify(p, null, 2)}\n`);

for (const name of ["attempt", "dead_letter", "erasure", "key_rotation", "witnessed"]) {
  test(`a package of kind ${name} is a full proof`, async () => {
    const report = await verify(read(name), { trustedKeys: [key] });
    assert.deepEqual(report.checks.filter((check) => !check.ok), []);
    assert.equal(report.full, true);
    assert.equal(report.leaf?.["kind"], name === "witnessed" ? "attempt" : name);
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

for (const [name, trustedKeys, flips] of [["with a key", [key], [1, 2, 4, 8, 16, 32, 64, 128]], ["without a key", [], [1, 32]]] as const) {
  test(`every flipped byte is refused, and every byte left out, ${name}`, async () => {
    const data = read("witnessed");
    assert.notEqual((await verify(data, { trustedKeys: [...trustedKeys] })).level, "refused");
    for (let i = 0; i < data.length; i++) {
      for (const bits of flips) {
        const changed = data.slice();
        changed[i]! ^= bits;
        assert.equal((await verify(changed, { trustedKeys: [...trustedKeys] })).level, "refused", `byte ${i} flipped by ${bits}`);
      }
      const shorter = new Uint8Array([...data.subarray(0, i), ...data.subarray(i + 1)]);
      assert.equal((await verify(shorter, { trustedKeys: [...trustedKeys] })).level, "refused", `byte ${i} left out`);
    }
  });
}

test("the cases of the Go verifier have the same end", async () => {
  const base = read("attempt");
  const cases = shared<{ name: string; at: number; drop: number; put: string; trusted: string[]; level: string; check?: string; not_checked?: string[] }[]>("cases");
  assert.ok(cases.length > 80, `${cases.length} cases`);
  for (const c of cases) {
    const file = Buffer.concat([base.subarray(0, c.at), bytes(c.put), base.subarray(c.at + c.drop)]);
    const report = await verify(new Uint8Array(file), { trustedKeys: c.trusted });
    assert.equal(report.level, c.level, c.name);
    assert.equal(report.full, c.level === "full proof", c.name);
    // JSON.parse drops the first of two fields of one name, so the file is not in canonical form already.
    const check = c.name === "decoded field twice" ? "format" : c.check;
    if (check) assert.equal(report.checks.at(-1)?.name, check, `${c.name}: ${report.checks.at(-1)?.detail}`);
    else assert.deepEqual(report.notChecked, c.not_checked ?? [], c.name);
  }
});

test("what is nested deeply is refused", async () => {
  const text = new TextDecoder().decode(read("attempt"));
  const at = text.indexOf('"attempt": ') + '"attempt": '.length;
  for (const nested of ["[".repeat(100_000) + "]".repeat(100_000), '{"a":'.repeat(20_000) + "1" + "}".repeat(20_000), "[".repeat(9) + "]".repeat(9)]) {
    const report = await verify(new TextEncoder().encode(`${text.slice(0, at)}${nested}\n}\n`), { trustedKeys: [key] });
    assert.equal(report.level, "refused");
    assert.match(report.checks.at(-1)!.detail, /nested/);
  }
});

test("leaves are described as the Go verifier describes them", async () => {
  for (const { name, leaf, text } of shared<{ name: string; leaf: string | null; text: object | null }[]>("leaves")) {
    const described = (async () => JSON.stringify(await describe(decodeLeaf(bytes(leaf ?? "")))))();
    if (text) assert.equal(await described, JSON.stringify(text), name);
    else await assert.rejects(described, Error, name);
  }
});

test("hand-overs of the log's key are followed from a trusted key only", async () => {
  for (const c of shared<{ name: string; trusted: string[]; leaves: string[]; want: string[] | null }[]>("follow")) {
    const followed = followRotations(c.trusted, c.leaves.map(bytes));
    if (c.want) assert.deepEqual(await followed, c.want, c.name);
    else await assert.rejects(followed, Error, c.name);
  }
});

test("a tlog-proof file is a full proof, by a trusted key only", async () => {
  const file = new Uint8Array(readFileSync(`${testdata}/attempt.tlog-proof`));
  const report = await verifyTlogProof(file, { trustedKeys: [key] });
  assert.equal(report.level, "full proof", JSON.stringify(report.checks));
  assert.equal(report.leaf?.["url"], "https://shop.example.com/hooks?a=1&b=<2>");
  assert.deepEqual(report.tree && [report.tree.leafIndex, report.tree.size], [12, 40]);
  assert.equal(report.headTime?.toISOString(), "2026-03-04T05:06:07.000Z");
  assert.equal((await verifyTlogProof(file)).level, "refused");
  const text = new TextDecoder().decode(file);
  const bare = new TextEncoder().encode(text.replace(/^extra .*\n/m, ""));
  assert.equal((await verifyTlogProof(bare, { trustedKeys: [key] })).checks.at(-1)?.name, "leaf");
  const whole = JSON.parse(new TextDecoder().decode(read("attempt"))) as Package;
  const leaf = new Uint8Array(Buffer.from(whole.leaf, "hex"));
  assert.equal((await verifyTlogProof(bare, { trustedKeys: [key] }, leaf)).full, true);
  assert.equal((await verifyTlogProof(bare, { trustedKeys: [key] }, leaf.subarray(1))).checks.at(-1)?.name, "inclusion");
  // Lines of keys that nobody trusts are no part of the statement; all that is before them is, and the log's signature.
  const signed = Buffer.from(file).lastIndexOf("— log.example.com");
  assert.ok(signed > 500);
  for (let i = 0; i < signed; i++) {
    const changed = file.slice();
    changed[i]! ^= 1;
    assert.equal((await verifyTlogProof(changed, { trustedKeys: [key] })).level, "refused", `byte ${i}`);
    for (const more of ["\r", "\n", "=", " "]) {
      const longer = Buffer.concat([file.subarray(0, i), Buffer.from(more), file.subarray(i)]);
      assert.equal((await verifyTlogProof(new Uint8Array(longer), { trustedKeys: [key] })).level, "refused", `${JSON.stringify(more)} before byte ${i}`);
    }
  }
  for (const input of ["", "c2sp.org/tlog-proof@v1\n", "c2sp.org/tlog-proof@v1\nindex 0\n\n", "c2sp.org/tlog-proof@v1\nindex 9007199254740992\n\nx", `${text.slice(0, 23)}extra =\n\n`]) {
    assert.equal((await verifyTlogProof(new TextEncoder().encode(input), { trustedKeys: [key] })).level, "refused", input);
  }
});

test("without WebCrypto the same signatures are taken and refused", async () => {
  const { Point } = ed25519;
  const order = Point.Fn.ORDER;
  const number = (data: Uint8Array) => data.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
  const littleEndian = (value: bigint) => Uint8Array.from({ length: 32 }, (_, i) => Number((value >> BigInt(8 * i)) & 255n));
  const seed = new Uint8Array(32).fill(7);
  const message = new TextEncoder().encode("message");
  const whole = new Uint8Array(ed25519.sign(message, seed));
  const publicKey = new Uint8Array(ed25519.getPublicKey(seed));
  const join = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
  // A point of small order in R, and an S for it: right only for who multiplies by the cofactor.
  const secret = number(seed) % order;
  const ownKey = new Uint8Array(Point.BASE.multiply(secret).toBytes());
  const small = ED25519_TORSION_SUBGROUP.map((text) => new Uint8Array(Buffer.from(text, "hex")));
  const withSmall = (torsion: Uint8Array) => {
    const r = Point.BASE.multiply(5n).add(Point.fromBytes(torsion, true)).toBytes();
    const k = number(createHash("sha512").update(r).update(ownKey).update(message).digest()) % order;
    return join(r, littleEndian((5n + k * secret) % order));
  };
  const cases: [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>][] = [
    [publicKey, whole],
    [publicKey, join(whole.subarray(0, 32), littleEndian(number(whole.subarray(32)) + order))],
    [publicKey, join(whole.subarray(0, 63), Uint8Array.of(whole[63]! ^ 1))],
    [publicKey, new Uint8Array(64)],
    [new Uint8Array(32).fill(2), whole],
    ...small.map((torsion) => [ownKey, withSmall(torsion)] as [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>]),
    ...small.map((torsion) => [torsion, join(Point.BASE.multiply(3n).toBytes(), littleEndian(3n))] as [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>]),
  ];
  const bytesOf = (data: Uint8Array) => new Uint8Array(data);
  const answers = () => Promise.all(cases.map(([key, signature]) => verifyEd25519(key, bytesOf(message), signature)));
  const want = await answers();
  assert.ok(want[0] && want[5] && !want[1] && !want[2] && !want[3] && !want[4]);
  assert.equal(want.slice(5, 5 + small.length).filter(Boolean).length, 1, "of points of small order in R only the neutral one is right");
  const own = Object.getOwnPropertyDescriptor(globalThis, "crypto")!;
  Object.defineProperty(globalThis, "crypto", { value: undefined, configurable: true });
  try {
    assert.deepEqual(await answers(), want);
  } finally {
    Object.defineProperty(globalThis, "crypto", own);
  }
});

const lacking: [string, unknown][] = [
  ["without Ed25519", { subtle: { importKey: () => Promise.reject(new DOMException("Unrecognized name.", "NotSupportedError")) } }],
  ["without WebCrypto", undefined],
];
for (const [name, crypto] of lacking) {
  test(`${name} the same files are taken and refused`, async () => {
    const own = Object.getOwnPropertyDescriptor(globalThis, "crypto")!;
    Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true });
    try {
      for (const fixture of ["witnessed", "key_rotation"]) {
        const data = read(fixture);
        assert.equal((await verify(data, { trustedKeys: [key] })).level, "full proof");
        const at = Buffer.from(data).indexOf(" SlkX3"); // the log's signature line, behind the key id
        for (let i = at + 8; i < at + 90; i++) {
          const changed = data.slice();
          changed[i] = changed[i] === 65 ? 66 : 65;
          if (Buffer.compare(changed, data) === 0) continue;
          assert.equal((await verify(changed, { trustedKeys: [key] })).level, "refused", `${fixture}, byte ${i}`);
        }
      }
    } finally {
      Object.defineProperty(globalThis, "crypto", own);
    }
  });
}

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
