// A log's hand-over from one key to the next, which is a leaf of the log and signed by both.

import type { KeyRotation } from "../gen/kapsel/leaf/v1/leaf_pb.js";
import { Refusal, same, utf8 } from "./bytes.js";
import { keyText, maxSeconds, parseKey, typeEd25519 } from "./checkpoint.js";
import { verifyEd25519 } from "./ed25519.js";

/** A hand-over of which both signatures were checked. That is no reason to trust the old key: see followRotations. */
export interface Rotation {
  /** The log's name. */
  origin: string;
  /** Verifier keys, "<origin>+<key id>+<base64>". */
  oldKey: string;
  newKey: string;
  /** When the new key came into use. */
  rotatedAt: Date;
  /** When the old one was to stop. Until then each head is signed by both. */
  oldKeyRetiresAt: Date;
}

export async function openRotation(m: KeyRotation): Promise<Rotation> {
  const [oldKey, newKey] = [m.oldPublicKey, m.newPublicKey].map((publicKey) => {
    if (publicKey.length !== 32) throw new Refusal(`the hand-over names a key of ${publicKey.length} bytes: want 32`);
    const text = keyText(m.origin, typeEd25519, publicKey);
    try {
      parseKey(text);
    } catch (error) {
      throw new Refusal(`the hand-over names a key that ${(error as Error).message}`);
    }
    return text;
  }) as [string, string];
  const times = [m.rotatedAt, m.oldKeyRetiresAt].map((at) => {
    const seconds = at?.seconds ?? 0n;
    if (seconds <= 0n || seconds > maxSeconds) throw new Refusal("the hand-over has no possible time");
    if (at!.nanos !== 0) throw new Refusal("the hand-over's times are not whole seconds");
    return seconds;
  });
  if (same(m.oldPublicKey, m.newPublicKey)) throw new Refusal("the hand-over is to the same key");
  // Lines of text, of which none can be one of a checkpoint.
  const statement = utf8(`kapsel-key-rotation/v1\n${m.origin}\n${oldKey}\n${newKey}\n${times[0]}\n${times[1]}\n`);
  for (const [which, publicKey, signature] of [["old", m.oldPublicKey, m.oldSignature], ["new", m.newPublicKey, m.newSignature]] as const) {
    if (signature.length !== 64 || !(await verifyEd25519(new Uint8Array(publicKey), statement, new Uint8Array(signature)))) {
      throw new Refusal(`the hand-over's signature of the ${which} key is wrong`);
    }
  }
  const [rotatedAt, oldKeyRetiresAt] = times.map((seconds) => new Date(Number(seconds) * 1000)) as [Date, Date];
  return { origin: m.origin, oldKey, newKey, rotatedAt, oldKeyRetiresAt };
}
