/**
 * Checks Kapsel's proof packages, archives of them, and C2SP tlog-proof files, in the browser and in Node.js 20 or later, without a network and
 * without trusting Kapsel.
 *
 * It makes the checks of the Go package sdk/go/verify, in the same order, and refuses what that refuses: a file in which a
 * single byte differs. Signatures are checked by WebCrypto, and in JavaScript where that has no Ed25519.
 */

import { fromHex, Refusal, same, toHex } from "./bytes.js";
import { canVerify, type Key, keyID, keyName, type Line, newRing, openCheckpoint, parseKey, typeCosignature, typeEd25519 } from "./checkpoint.js";
import { decodeLeaf, type Description, describe } from "./leaf.js";
import { includes, leafHash } from "./merkle.js";
import { format, type Package, parsePackage } from "./package.js";
import { findLine, isoSeconds, type Options, parseTrusted, type Report } from "./report.js";
import { openRotation, type Rotation } from "./rotation.js";

export { type ArchiveReport, isArchive, type Manifest, verifyArchive } from "./archive.js";
export type { Description } from "./leaf.js";
export { format, maxPackageBytes, type Package } from "./package.js";
export type { Check, Options, Report } from "./report.js";
export type { Rotation } from "./rotation.js";
export { isTlogProof, verifyTlogProof } from "./tlogproof.js";

/**
 * Checks a package. The report says whether it is a full proof; a package that is refused gives a report too, with the
 * check that failed last. It throws only if a trusted key is malformed.
 */
export async function verify(data: Uint8Array, options: Options = {}): Promise<Report> {
  const trusted = parseTrusted(options.trustedKeys);
  const report: Report = { full: false, level: "refused", checks: [], notChecked: [] };
  let listed: Key[] = [];
  let lines: Line[] = [];
  let p: Package;
  let signer: Key;
  const steps: [string, () => Promise<string> | string][] = [
    ["format", () => {
      p = parsePackage(data);
      report.package = p;
      report.tree = { origin: p.origin, leafIndex: p.leaf_index, size: p.tree_size, rootHash: p.root_hash };
      return `canonical ${format}`;
    }],
    ["leaf hash", () => {
      const got = toHex(leafHash(fromHex(p.leaf)));
      if (got !== p.leaf_hash) throw new Refusal(`the leaf hashes to ${got}, and leaf_hash is ${p.leaf_hash}`);
      return `SHA-256 of the leaf's bytes is ${p.leaf_hash}`;
    }],
    ["leaf", async () => {
      const leaf = await describe(decodeLeaf(fromHex(p.leaf)));
      if (JSON.stringify(p.attempt) !== JSON.stringify(leaf)) throw new Refusal(`attempt is not what the leaf says: ${differing(p.attempt, leaf)}`);
      report.leaf = leaf;
      return "the readable part is what the leaf's bytes say";
    }],
    ["inclusion", () => {
      if (!includes(p.leaf_index, p.tree_size, fromHex(p.leaf_hash), p.audit_path.map(fromHex), fromHex(p.root_hash))) {
        throw new Refusal(`the audit path does not lead from leaf ${p.leaf_index} to root_hash in a tree of ${p.tree_size} leaves`);
      }
      return `leaf ${p.leaf_index} is in the tree of ${p.tree_size} leaves with root ${p.root_hash}`;
    }],
    ["public keys", () => {
      for (const [i, text] of p.public_keys.entries()) {
        try {
          listed.push(parseKey(text));
        } catch (error) {
          throw new Refusal(`key ${i + 1} ${(error as Error).message}`);
        }
      }
      if (listed.length === 0) throw new Refusal("the package names no key");
      return "";
    }],
    ["checkpoint", async () => {
      const opened = await openCheckpoint(p.checkpoint, newRing([...trusted, ...listed])).catch((error: unknown) => {
        throw error instanceof Refusal ? new Refusal(`the checkpoint ${error.message}`) : error;
      });
      lines = opened.lines;
      const head = opened.head;
      if (head.origin !== p.origin) throw new Refusal(`the checkpoint is of log ${JSON.stringify(head.origin)}, and origin is ${JSON.stringify(p.origin)}`);
      if (!p.origin.endsWith(`/${p.log_id}`) || p.log_id.includes("/")) throw new Refusal("log_id is not the last path segment of origin");
      if (head.size !== p.tree_size) throw new Refusal(`the checkpoint has tree size ${head.size}, and tree_size is ${p.tree_size}`);
      if (!same(head.root, fromHex(p.root_hash))) throw new Refusal(`the checkpoint has root ${toHex(head.root)}, and root_hash is ${p.root_hash}`);
      for (const line of lines) {
        if (line.key) continue;
        const name = keyName(line.name, line.id);
        if (!lists(listed, line)) throw new Refusal(`the checkpoint has a signature of ${name}, and public_keys has no such key`);
        report.notChecked.push(name);
      }
      return "it names the same log, tree size and root, and none of its signatures is wrong";
    }],
    ["signature", () => {
      const found = (trusted.length > 0 ? trusted : listed).find(
        (key) => key.name === p.origin && key.kind === typeEd25519 && findLine(lines, key, typeEd25519),
      );
      if (!found) throw new Refusal(trusted.length > 0 ? `no trusted key has signed the checkpoint as ${JSON.stringify(p.origin)}` : "the checkpoint is not signed by its log");
      signer = found;
      report.key = found.text;
      return trusted.length > 0
        ? `Ed25519, by the trusted key ${found.text}`
        : "Ed25519, by the key in the package itself, which anybody could have put there";
    }],
    ["time", () => {
      const line = findLine(lines, signer, typeCosignature);
      if (line?.seconds === undefined) return "";
      report.headTime = new Date(line.seconds * 1000);
      return `the log signed this tree at ${isoSeconds(report.headTime)}`;
    }],
  ];
  for (const [name, step] of steps) {
    try {
      const detail = await step();
      if (detail) report.checks.push({ name, ok: true, detail });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      report.checks.push({ name, ok: false, detail: error.message });
      return report;
    }
  }
  report.full = trusted.length > 0;
  report.level = report.full ? "full proof" : "consistent, but the key is not checked";
  return report;
}

/** Whether the package lists the key of a line, of a type that this version does not know. */
const lists = (listed: Key[], line: Line): boolean =>
  listed.some((key) => !canVerify(key) && key.name === line.name && keyID(key, key.kind) === line.id);

function differing(got: Description | null, want: Description): string {
  if (typeof got !== "object" || got === null) return "it is not an object";
  const names = [...new Set([...Object.keys(got), ...Object.keys(want)])].filter((name) => JSON.stringify(got[name]) !== JSON.stringify(want[name]));
  if (names.length === 0) return "its fields are in another order";
  return names.slice(0, 5).map((name) => `"${name}" is ${JSON.stringify(got[name])} instead of ${JSON.stringify(want[name])}`).join(", ");
}

/** Reads the leaf of a hand-over of keys and checks both of its signatures. It throws if the leaf is no right one. */
export async function readRotation(leaf: Uint8Array): Promise<Rotation> {
  const { kind } = decodeLeaf(leaf);
  if (kind.case !== "keyRotation") throw new Refusal("the leaf is not a hand-over of keys");
  return openRotation(kind.value);
}

/**
 * Returns the trusted keys, and after them those that they lead to, by the leaves of hand-overs of their log in the order of
 * the log (/.well-known/kapsel-log.json, or getLog). A hand-over from a key that is not trusted adds nothing. It throws if a
 * leaf is no right hand-over.
 *
 * Whoever has stolen a trusted key can sign a hand-over too. So follow hand-overs only under a head that covers their leaves
 * and that you would believe, such as one that witnesses have cosigned; and take a key that changed without notice up with
 * its operator.
 */
export async function followRotations(trusted: string[], leaves: Uint8Array[]): Promise<string[]> {
  parseTrusted(trusted);
  const keys = [...trusted];
  for (const [i, leaf] of leaves.entries()) {
    const { oldKey, newKey } = await readRotation(leaf).catch((error: unknown) => {
      throw error instanceof Refusal ? new Error(`hand-over ${i + 1}: ${error.message}`) : error;
    });
    if (keys.includes(oldKey) && !keys.includes(newKey)) keys.push(newKey);
  }
  return keys;
}
