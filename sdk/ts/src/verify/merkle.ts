// RFC 6962 section 2.1 with SHA-256; proofs are checked as RFC 9162 section 2.1.3.2 says.

import { same, sha256 } from "./bytes.js";

const leafPrefix = Uint8Array.of(0);
const nodePrefix = Uint8Array.of(1);

export const leafHash = (leaf: Uint8Array): Uint8Array<ArrayBuffer> => sha256(leafPrefix, leaf);

/** Whether path leads from the hash of leaf index to the root of a tree of size leaves. */
export function includes(index: number, size: number, hash: Uint8Array, path: Uint8Array[], root: Uint8Array): boolean {
  if (index >= size) return false;
  let at = BigInt(index);
  let last = BigInt(size) - 1n;
  let computed = hash;
  for (const sibling of path) {
    if (last === 0n) return false;
    if ((at & 1n) === 1n || at === last) {
      computed = sha256(nodePrefix, sibling, computed);
      while ((at & 1n) === 0n && at !== 0n) {
        at >>= 1n;
        last >>= 1n;
      }
    } else {
      computed = sha256(nodePrefix, computed, sibling);
    }
    at >>= 1n;
    last >>= 1n;
  }
  return last === 0n && same(computed, root);
}
