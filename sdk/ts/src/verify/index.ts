/**
 * Checks Kapsel's proof packages, in the browser and in Node.js 20 or later, without a network and without trusting Kapsel.
 *
 * It makes the checks of the Go package sdk/go/verify, in the same order, and refuses what that refuses: a file in which a
 * single byte differs. It needs WebCrypto with SHA-256 and Ed25519.
 */

import { fromHex, Refusal, same, toHex, utf8 } from "./bytes.js";
import { canVerify, type Key, keyID, type Line, newRing, openCheckpoint, parseKey, sameKey, typeCosignature, typeEd25519 } from "./checkpoint.js";
import { decodeLeaf, type Description, describe } from "./leaf.js";
import { includes, leafHash } from "./merkle.js";

export type { Description } from "./leaf.js";

/** Value of a package's field "format". */
export const format = "kapsel-proof/v1";

/** Largest package, in bytes. */
export const maxPackageBytes = 1 << 20;
const maxLeafBytes = 64 << 10;
const maxOriginBytes = 255;
const maxLogIDBytes = 64;
const maxPathHashes = 64;
const maxKeys = 64;

/** A proof package: everything that is needed to check one leaf offline. Hashes and bytes are lower-case hex. */
export interface Package {
  format: string;
  origin: string;
  log_id: string;
  leaf_index: number;
  tree_size: number;
  leaf: string;
  leaf_hash: string;
  audit_path: string[];
  root_hash: string;
  checkpoint: string;
  public_keys: string[];
  attempt: Description;
}

const fields = [
  "format", "origin", "log_id", "leaf_index", "tree_size", "leaf", "leaf_hash", "audit_path", "root_hash", "checkpoint", "public_keys", "attempt",
];

/** One thing that was looked at. */
export interface Check {
  name: string;
  ok: boolean;
  detail: string;
}

/** What came out of a verification. */
export interface Report {
  /** Whether the log has committed to the record, by a key that was given. */
  full: boolean;
  level: "full proof" | "consistent, but the key is not checked" | "refused";
  /** The checks that were made, in order. After one that failed no other was made. */
  checks: Check[];
  /** Names of keys whose signatures are of a kind that this version cannot check. */
  notChecked: string[];
  /** The package; undefined if the file could not be read as one. */
  package?: Package;
  /** The leaf, decoded anew from its bytes. */
  leaf?: Description;
  /** When the log signed the tree, by its own clock. */
  headTime?: Date;
  /** The verifier key whose signature was found. */
  key?: string;
}

/** Whom to trust. */
export interface Options {
  /** Verifier keys, "<name>+<key id>+<base64>", that came from elsewhere than the package. */
  trustedKeys?: string[];
}

/**
 * Checks a package. The report says whether it is a full proof; a package that is refused gives a report too, with the
 * check that failed last. It throws only if a trusted key is malformed.
 */
export async function verify(data: Uint8Array, options: Options = {}): Promise<Report> {
  const trusted: Key[] = [];
  for (const text of options.trustedKeys ?? []) {
    try {
      trusted.push(await parseKey(text));
    } catch (error) {
      throw new Error(`the trusted key ${JSON.stringify(text.slice(0, 100))} ${(error as Error).message}`);
    }
  }
  const report: Report = { full: false, level: "refused", checks: [], notChecked: [] };
  let listed: Key[] = [];
  let lines: Line[] = [];
  let p: Package;
  let signer: Key;
  const steps: [string, () => Promise<string> | string][] = [
    ["format", () => {
      p = parse(data);
      report.package = p;
      return `canonical ${format}`;
    }],
    ["leaf hash", async () => {
      const got = toHex(await leafHash(fromHex(p.leaf)));
      if (got !== p.leaf_hash) throw new Refusal(`the leaf hashes to ${got}, and leaf_hash is ${p.leaf_hash}`);
      return `SHA-256 of the leaf's bytes is ${p.leaf_hash}`;
    }],
    ["leaf", () => {
      const leaf = describe(decodeLeaf(fromHex(p.leaf)));
      if (JSON.stringify(p.attempt) !== JSON.stringify(leaf)) throw new Refusal(`attempt is not what the leaf says: ${differing(p.attempt, leaf)}`);
      report.leaf = leaf;
      return "the readable part is what the leaf's bytes say";
    }],
    ["inclusion", async () => {
      if (!(await includes(p.leaf_index, p.tree_size, fromHex(p.leaf_hash), p.audit_path.map(fromHex), fromHex(p.root_hash)))) {
        throw new Refusal(`the audit path does not lead from leaf ${p.leaf_index} to root_hash in a tree of ${p.tree_size} leaves`);
      }
      return `leaf ${p.leaf_index} is in the tree of ${p.tree_size} leaves with root ${p.root_hash}`;
    }],
    ["public keys", async () => {
      for (const [i, text] of p.public_keys.entries()) {
        try {
          listed.push(await parseKey(text));
        } catch (error) {
          throw new Refusal(`key ${i + 1} ${(error as Error).message}`);
        }
      }
      if (listed.length === 0) throw new Refusal("the package names no key");
      return "";
    }],
    ["checkpoint", async () => {
      const opened = await openCheckpoint(p.checkpoint, await newRing([...trusted, ...listed])).catch((error: unknown) => {
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
        const name = `${line.name}+${line.id.toString(16).padStart(8, "0")}`;
        if (!(await lists(listed, line))) throw new Refusal(`the checkpoint has a signature of ${name}, and public_keys has no such key`);
        report.notChecked.push(name);
      }
      return "it names the same log, tree size and root, and none of its signatures is wrong";
    }],
    ["signature", () => {
      const found = (trusted.length > 0 ? trusted : listed).find(
        (key) => key.name === p.origin && key.kind === typeEd25519 && find(lines, key, typeEd25519),
      );
      if (!found) throw new Refusal(trusted.length > 0 ? `no trusted key has signed the checkpoint as ${JSON.stringify(p.origin)}` : "the checkpoint is not signed by its log");
      signer = found;
      report.key = found.text;
      return trusted.length > 0
        ? `Ed25519, by the trusted key ${found.text}`
        : "Ed25519, by the key in the package itself, which anybody could have put there";
    }],
    ["time", () => {
      const line = find(lines, signer, typeCosignature);
      if (line?.seconds === undefined) return "";
      report.headTime = new Date(line.seconds * 1000);
      return `the log signed this tree at ${report.headTime.toISOString().replace(".000Z", "Z")}`;
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

const find = (lines: Line[], key: Key, kind: number): Line | undefined =>
  lines.find((line) => line.key && line.kind === kind && sameKey(line.key, key));

/** Whether the package lists the key of a line, of a type that this version does not know. */
async function lists(listed: Key[], line: Line): Promise<boolean> {
  for (const key of listed) {
    if (!canVerify(key) && key.name === line.name && (await keyID(key, key.kind)) === line.id) return true;
  }
  return false;
}

/** Reads a package, in its only form: what JSON.stringify(package, null, 2) gives, and a newline. */
function parse(data: Uint8Array): Package {
  if (data.length > maxPackageBytes) throw new Refusal(`the file has more than ${maxPackageBytes} bytes`);
  let text: string;
  let p: Package;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
    p = JSON.parse(text) as Package;
  } catch {
    throw new Refusal("not a proof package: not JSON");
  }
  if (typeof p !== "object" || p === null || Object.keys(p).join() !== fields.join()) throw new Refusal("not a proof package: other fields than those of one");
  // An escaped half of a surrogate pair is no text, and other readers of JSON put something else in its place.
  if (/\\ud[89a-f]/i.test(text)) throw new Refusal("there is half of a character in a text");
  if (p.format !== format) throw new Refusal(`format is not ${format}`);
  for (const name of ["origin", "log_id", "leaf", "leaf_hash", "root_hash", "checkpoint"] as const) {
    if (typeof p[name] !== "string") throw new Refusal(`${name} is not a text`);
  }
  bound("origin", utf8(p.origin).length, 1, maxOriginBytes);
  bound("log_id", utf8(p.log_id).length, 1, maxLogIDBytes);
  bound("leaf", p.leaf.length, 0, 2 * maxLeafBytes);
  if (!Number.isSafeInteger(p.tree_size) || p.tree_size < 1) throw new Refusal("tree_size is not a number of leaves");
  if (!Number.isSafeInteger(p.leaf_index) || p.leaf_index < 0 || p.leaf_index >= p.tree_size) throw new Refusal("leaf_index is not below tree_size");
  for (const [name, most] of [["audit_path", maxPathHashes], ["public_keys", maxKeys]] as const) {
    const list: unknown = p[name];
    if (!Array.isArray(list) || list.some((item) => typeof item !== "string")) throw new Refusal(`${name} is not a list of texts`);
    bound(name, list.length, 0, most);
  }
  if (typeof p.attempt !== "object" || p.attempt === null || Array.isArray(p.attempt)) throw new Refusal("attempt is not an object");
  fromHex(p.leaf);
  for (const hash of [p.leaf_hash, p.root_hash, ...p.audit_path]) {
    if (hash.length !== 64) throw new Refusal("a hash does not have 64 characters");
    fromHex(hash);
  }
  if (`${JSON.stringify(p, null, 2)}\n` !== text) throw new Refusal("not in canonical form");
  return p;
}

function bound(name: string, size: number, low: number, high: number): void {
  if (size < low || size > high) throw new Refusal(`${name} has size ${size}: want ${low} to ${high}`);
}

function differing(got: Description, want: Description): string {
  const names = [...new Set([...Object.keys(got), ...Object.keys(want)])].filter((name) => JSON.stringify(got[name]) !== JSON.stringify(want[name]));
  if (names.length === 0) return "its fields are in another order";
  return names.slice(0, 5).map((name) => `"${name}" is ${JSON.stringify(got[name])} instead of ${JSON.stringify(want[name])}`).join(", ");
}
