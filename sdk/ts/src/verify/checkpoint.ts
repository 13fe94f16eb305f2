// C2SP signed-note, tlog-checkpoint and tlog-cosignature.

import { concat, fromBase64, Refusal, same, sha256, toBase64, utf8 } from "./bytes.js";
import { verifyEd25519 } from "./ed25519.js";

export const typeEd25519 = 0x01;
export const typeCosignature = 0x04;

const maxNoteBytes = 256 << 10;
const maxKeyBytes = 4 << 10;
const maxLines = 100;
/** 9999-12-31T23:59:59Z, the last second that RFC 3339 can write. */
export const maxSeconds = 253402300799n;

/** A verifier key, "<name>+<8 hex of key id>+<base64(type || public key)>". */
export interface Key {
  text: string;
  name: string;
  kind: number;
  publicKey: Uint8Array<ArrayBuffer>;
}

/** What a checkpoint's text says. */
export interface Head {
  origin: string;
  size: number;
  root: Uint8Array;
}

/** One signature line. key is the one that it was verified with; undefined: none was given for it. */
export interface Line {
  name: string;
  id: number;
  key?: Key;
  kind?: number;
  /** POSIX seconds, in verified cosignatures. */
  seconds?: number;
}

export function parseKey(text: string): Key {
  if (utf8(text).length > maxKeyBytes) throw new Refusal(`has more than ${maxKeyBytes} bytes`);
  const match = /^([^+]+)\+([^+]*)\+([^]*)$/.exec(text);
  if (!match) throw new Refusal("is not of the form <name>+<key id>+<base64>");
  const raw = fromBase64(match[3]!);
  if (!raw || raw.length < 2) throw new Refusal("does not end in the base64 of a key");
  const key = { text, name: match[1]!, kind: raw[0]!, publicKey: raw.slice(1) };
  if (keyText(key.name, key.kind, key.publicKey) !== text) throw new Refusal("does not have the key id of its name and key");
  if (canVerify(key) && key.publicKey.length !== 32) throw new Refusal("does not have 32 bytes of Ed25519 key");
  return key;
}

export const canVerify = (key: Key): boolean => key.kind === typeEd25519 || key.kind === typeCosignature;

export function keyID(key: { name: string; publicKey: Uint8Array }, kind: number): number {
  return new DataView(sha256(utf8(key.name), Uint8Array.of(0x0a, kind), key.publicKey).buffer).getUint32(0);
}

/** The only spelling of a verifier key. */
export function keyText(name: string, kind: number, publicKey: Uint8Array): string {
  return `${keyName(name, keyID({ name, publicKey }, kind))}+${toBase64(concat(Uint8Array.of(kind), publicKey))}`;
}

/** How a key is named in reports. */
export const keyName = (name: string, id: number): string => `${name}+${id.toString(16).padStart(8, "0")}`;

/** The verifiers of lines, by name and id. Of two keys with one id the first stays: trusted keys are given first. */
export type Ring = Map<string, { key: Key; kind: number }>;

export function newRing(keys: Key[]): Ring {
  const ring: Ring = new Map();
  for (const key of keys) {
    for (const kind of [typeEd25519, typeCosignature]) {
      if (key.kind !== kind && key.kind !== typeEd25519) continue;
      const place = `${key.name}+${keyID(key, kind)}`;
      if (!ring.has(place)) ring.set(place, { key, kind });
    }
  }
  return ring;
}

export function sameKey(a: Key, b: Key): boolean {
  return a.name === b.name && same(a.publicKey, b.publicKey);
}

/** Reads a signed note and checks each line for which the ring has a key. A line that is wrong makes it refused. */
export async function openCheckpoint(signed: string, ring: Ring): Promise<{ head: Head; lines: Line[] }> {
  if (utf8(signed).length > maxNoteBytes) throw new Refusal(`has more than ${maxNoteBytes} bytes`);
  const malformed = () => new Refusal("is not a signed note");
  const split = signed.lastIndexOf("\n\n");
  if (split < 0 || /[\u0000-\u0009\u000b-\u001f]/.test(signed) || !signed.endsWith("\n")) throw malformed();
  const text = signed.slice(0, split + 1);
  const rest = signed.slice(split + 2);
  if (rest === "") throw malformed();
  const lines: Line[] = [];
  const seen = new Set<string>();
  const texts = rest.slice(0, -1).split("\n");
  if (texts.length > maxLines) throw malformed();
  for (const line of texts) {
    const match = /^\u2014 ([^ ]*) (.+)$/u.exec(line);
    if (!match || match[1] === "" || /[\s\u0085+]/u.test(match[1]!.replaceAll("\ufeff", ""))) throw malformed();
    const name = match[1]!;
    const raw = fromBase64(match[2]!);
    if (!raw || raw.length < 5) throw malformed();
    const id = new DataView(raw.buffer).getUint32(0);
    const found = ring.get(`${name}+${id}`);
    const place = found ? `${name}+${id}` : line;
    if (seen.has(place)) throw new Refusal("has two signature lines of one key");
    seen.add(place);
    if (!found) {
      lines.push({ name, id });
      continue;
    }
    const signature = raw.slice(4);
    if (!(await verifyLine(found.key, found.kind, utf8(text), signature))) {
      throw new Refusal(`the signature of ${keyName(name, id)} is wrong`);
    }
    const verified: Line = { name, id, key: found.key, kind: found.kind };
    if (found.kind === typeCosignature) {
      const seconds = new DataView(signature.buffer).getBigUint64(0);
      if (seconds > maxSeconds) throw new Refusal(`the cosignature of ${name} has no possible time`);
      verified.seconds = Number(seconds);
    }
    lines.push(verified);
  }
  return { head: parseHead(text), lines };
}

async function verifyLine(key: Key, kind: number, text: Uint8Array, signature: Uint8Array<ArrayBuffer>): Promise<boolean> {
  let message = text;
  let signed = signature;
  if (kind === typeCosignature) {
    if (signature.length !== 8 + 64) return false;
    const seconds = new DataView(signature.buffer).getBigUint64(0);
    message = concat(utf8(`cosignature/v1\ntime ${seconds}\n`), text);
    signed = signature.slice(8);
  }
  if (signed.length !== 64) return false;
  return verifyEd25519(key.publicKey, concat(message), signed);
}

function parseHead(text: string): Head {
  const parts = text.split("\n");
  if (parts.length < 4) throw new Refusal("has fewer than three lines");
  const size = Number(parts[1]);
  if (!/^(?:0|[1-9][0-9]*)$/.test(parts[1]!) || !Number.isSafeInteger(size)) throw new Refusal("its tree size is not a decimal number");
  const root = fromBase64(parts[2]!);
  if (!root || root.length !== 32) throw new Refusal("its root is not the base64 of 32 bytes");
  return { origin: parts[0]!, size, root };
}
