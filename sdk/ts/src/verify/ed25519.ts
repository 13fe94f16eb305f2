// Ed25519 by WebCrypto, and in JavaScript where WebCrypto lacks it: browsers before 2025, and pages that came by plain HTTP.

import { concat, same } from "./bytes.js";

/** Whether signature (64 bytes) is that of the public key (32 bytes) over message. */
export async function verifyEd25519(
  publicKey: Uint8Array<ArrayBuffer>, message: Uint8Array<ArrayBuffer>, signature: Uint8Array<ArrayBuffer>,
): Promise<boolean> {
  const subtle = globalThis.crypto?.subtle as SubtleCrypto | undefined;
  try {
    const key = await subtle!.importKey("raw", publicKey, { name: "Ed25519" }, false, ["verify"]);
    return await subtle!.verify({ name: "Ed25519" }, key, signature, message);
  } catch {
    return verifyHere(publicKey, message, signature);
  }
}

/**
 * Computes R = [S]B - [k]A and compares its bytes, as Go, OpenSSL and BoringSSL do. RFC 8032 lets a verifier also multiply by the cofactor, as the
 * library's own check does: whoever has the key could make signatures then that one verifier takes and another refuses.
 */
async function verifyHere(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<boolean> {
  // Loaded where they are needed only.
  const { ed25519 } = await import("@noble/curves/ed25519.js");
  const { sha512 } = await import("@noble/hashes/sha2.js");
  const { Point } = ed25519;
  const order = Point.Fn.ORDER;
  const r = signature.subarray(0, 32);
  const s = littleEndian(signature.subarray(32));
  if (s >= order) return false;
  let key: InstanceType<typeof Point>;
  try {
    key = Point.fromBytes(publicKey, true);
  } catch {
    return false; // no point of the curve
  }
  const k = littleEndian(sha512(concat(r, publicKey, message))) % order;
  return same(Point.BASE.multiplyUnsafe(s).subtract(key.multiplyUnsafe(k)).toBytes(), r);
}

function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}
