// The proof package as a file, in its only form.

import { fromHex, Refusal, utf8 } from "./bytes.js";
import type { Description } from "./leaf.js";

/** Value of a package's field "format". */
export const format = "kapsel-proof/v1";

/** Largest package, in bytes. */
export const maxPackageBytes = 1 << 20;
const maxLeafBytes = 64 << 10;
const maxOriginBytes = 255;
const maxLogIDBytes = 64;
export const maxPathHashes = 64;
const maxKeys = 64;
const maxNesting = 8; // the attempt's lists are at 3

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

/**
 * Reads a package, in its only form: what JSON.stringify(package, null, 2) gives, and a newline. It takes any JSON that is not nested
 * deeply as the field "attempt", which only verify compares with the leaf.
 */
export function parsePackage(data: Uint8Array): Package {
  if (data.length > maxPackageBytes) throw new Refusal(`the file has more than ${maxPackageBytes} bytes`);
  if (nestsDeeper(data, maxNesting)) throw new Refusal(`not a proof package: lists and objects are nested more than ${maxNesting} deep`);
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
  if (/(?:^|[^\\])(?:\\\\)*\\ud[89a-f]/i.test(text)) throw new Refusal("there is half of a character in a text");
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
  fromHex(p.leaf);
  for (const hash of [p.leaf_hash, p.root_hash, ...p.audit_path]) {
    if (hash.length !== 64) throw new Refusal("a hash does not have 64 characters");
    fromHex(hash);
  }
  if (`${JSON.stringify(p, null, 2)}\n` !== text) throw new Refusal("not in canonical form");
  return p;
}

/**
 * Whether JSON has lists and objects in one another more than limit deep. Indented, each line of such a text is as long as it is deep: a small
 * file could become gigabytes.
 */
function nestsDeeper(data: Uint8Array, limit: number): boolean {
  let depth = 0;
  let inText = false;
  for (let i = 0; i < data.length; i++) {
    const char = String.fromCharCode(data[i]!);
    if (inText && char === "\\") i++; // whatever is escaped
    else if (char === '"') inText = !inText;
    else if (inText) continue;
    else if ((char === "[" || char === "{") && ++depth > limit) return true;
    else if (char === "]" || char === "}") depth--;
  }
  return false;
}

function bound(name: string, size: number, low: number, high: number): void {
  if (size < low || size > high) throw new Refusal(`${name} has size ${size}: want ${low} to ${high}`);
}
