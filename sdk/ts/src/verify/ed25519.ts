// Ed25519 by WebCrypto, and in JavaScript where WebCrypto lacks it: browsers before 2025, and pages that came by plain HTTP.

/** Whether signature (64 bytes) is that of the public key (32 bytes) over message. */
export async function verifyEd25519(
  publicKey: Uint8Array<ArrayBuffer>, message: Uint8Array<ArrayBuffer>, signature: Uint8Array<ArrayBuffer>,
): Promise<boolean> {
  const subtle = globalThis.crypto?.subtle as SubtleCrypto | undefined;
  try {
    const key = await subtle!.importKey("raw", publicKey, { name: "Ed25519" }, false, ["verify"]);
    return await subtle!.verify({ name: "Ed25519" }, key, signature, message);
  } catch {
    // Loaded where it is needed only. A key or signature that is none is refused here too: as Go does, by RFC 8032.
    const { ed25519 } = await import("@noble/curves/ed25519.js");
    return ed25519.verify(signature, message, publicKey, { zip215: false });
  }
}
