// What comes out of a verification, and whom it trusts.

import { type Key, type Line, parseKey, sameKey } from "./checkpoint.js";
import type { Description } from "./leaf.js";
import type { Package } from "./package.js";

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
  /** The package; undefined if the file could not be read as one, or is a tlog-proof. */
  package?: Package;
  /** The leaf's place and the tree head; undefined if the file could not be read. */
  tree?: { origin: string; leafIndex: number; size: number; rootHash: string };
  /** The leaf, decoded anew from its bytes; of a tlog-proof only if it is a leaf of Kapsel's. */
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

/** Reads the trusted keys. They are the caller's: one that is malformed is thrown, and refuses nothing. */
export function parseTrusted(texts: string[] = []): Key[] {
  return texts.map((text) => {
    try {
      return parseKey(text);
    } catch (error) {
      throw new Error(`the trusted key ${JSON.stringify(text.slice(0, 100))} ${(error as Error).message}`);
    }
  });
}

/** The verified line of just this key and type. */
export const findLine = (lines: Line[], key: Key, kind: number): Line | undefined =>
  lines.find((line) => line.key && line.kind === kind && sameKey(line.key, key));

export const isoSeconds = (at: Date): string => at.toISOString().replace(".000Z", "Z");
