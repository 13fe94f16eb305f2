// Bytes, hex, base64 and SHA-256: what every check stands on.

import { sha256 as digest } from "@noble/hashes/sha2.js";

const hexDigits = /^(?:[0-9a-f]{2})*$/;

/** Thrown by a check, with the reason; turned into a refusal by verify. */
export class Refusal extends Error {}

export function fromHex(text: string): Uint8Array<ArrayBuffer> {
  if (!hexDigits.test(text)) throw new Refusal("is not lower-case hex");
  const out = new Uint8Array(text.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return out;
}

export function toHex(bytes: Uint8Array): string {
  let out = "";
  for (const byte of bytes) out += byte.toString(16).padStart(2, "0");
  return out;
}

/** Canonical base64 only: with padding, and with no bits at the end that others could change. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) return undefined;
  const raw = atob(text);
  if (btoa(raw) !== text) return undefined;
  return Uint8Array.from(raw, (c) => c.charCodeAt(0));
}

export function toBase64(bytes: Uint8Array): string {
  let raw = "";
  for (const byte of bytes) raw += String.fromCharCode(byte);
  return btoa(raw);
}

export function concat(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/**
 * SHA-256 in this thread. A proof takes some thirty hashes of a few bytes each, and WebCrypto hands every one to another
 * thread and back: on a busy machine that is what a verification waits for.
 */
export const sha256 = (...parts: Uint8Array[]): Uint8Array<ArrayBuffer> => new Uint8Array(digest(concat(...parts)));

export const utf8 = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(new TextEncoder().encode(text));
