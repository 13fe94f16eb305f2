// C2SP tlog-proof files, version 1: leaf index, audit path and checkpoint, with the leaf as extra data.

import { fromBase64, Refusal, toHex } from "./bytes.js";
import { type Line, newRing, openCheckpoint, typeCosignature, typeEd25519 } from "./checkpoint.js";
import { decodeLeaf, type Description, describe } from "./leaf.js";
import { includes, leafHash } from "./merkle.js";
import { maxPackageBytes, maxPathHashes } from "./package.js";
import { findLine, isoSeconds, type Options, parseTrusted, type Report } from "./report.js";

const header = "c2sp.org/tlog-proof@v1\n";

interface TlogProof {
  extra?: Uint8Array;
  index: number;
  path: Uint8Array[];
  checkpoint: string;
}

/** Whether data begins like a C2SP tlog-proof file. */
export const isTlogProof = (data: Uint8Array): boolean => new TextDecoder().decode(data.subarray(0, header.length)) === header;

/**
 * Checks a C2SP tlog-proof file. leaf is the leaf that it is a proof of; undefined: the file's extra data is, as Kapsel writes
 * it. Without a trusted key the file is refused, since it names none itself. Cosignatures of keys that are not trusted
 * are not checked, and say nothing. It throws only if a trusted key is malformed.
 */
export async function verifyTlogProof(data: Uint8Array, options: Options = {}, leaf?: Uint8Array): Promise<Report> {
  const trusted = parseTrusted(options.trustedKeys);
  const report: Report = { full: false, level: "refused", checks: [], notChecked: [] };
  const pass = (name: string, detail: string) => report.checks.push({ name, ok: true, detail });
  let check = "format";
  try {
    const file = parse(data);
    check = "leaf";
    const bytes = leaf ?? file.extra;
    if (!bytes) throw new Refusal("the file has no leaf in it: say which one it is a proof of");
    check = "checkpoint";
    const { head, lines } = await openCheckpoint(file.checkpoint, newRing(trusted)).catch((error: unknown) => {
      throw error instanceof Refusal ? new Refusal(`the checkpoint ${error.message}`) : error;
    });
    const hash = leafHash(bytes);
    report.tree = { origin: head.origin, leafIndex: file.index, size: head.size, rootHash: toHex(head.root) };
    pass("format", "C2SP tlog-proof, version 1");
    pass("leaf hash", `SHA-256 of the leaf's bytes is ${toHex(hash)}`);
    const described = await describeIfKnown(bytes);
    if (described) report.leaf = described;
    check = "inclusion";
    if (!includes(file.index, head.size, hash, file.path, head.root)) {
      throw new Refusal(`the audit path does not lead from the leaf, at index ${file.index}, to the root in a tree of ${head.size} leaves`);
    }
    pass(check, `leaf ${file.index} is in the tree of ${head.size} leaves with root ${toHex(head.root)}`);
    check = "signature";
    const signer = trusted.find((key) => key.name === head.origin && findLine(lines, key, typeEd25519));
    if (!signer) throw new Refusal(`no trusted key has signed the checkpoint as ${JSON.stringify(head.origin)}`);
    report.key = signer.text;
    pass(check, `Ed25519, by the trusted key ${signer.text}`);
    const line: Line | undefined = findLine(lines, signer, typeCosignature);
    if (line?.seconds !== undefined) {
      report.headTime = new Date(line.seconds * 1000);
      pass("time", `the log signed this tree at ${isoSeconds(report.headTime)}`);
    }
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    report.checks.push({ name: check, ok: false, detail: error.message });
    return report;
  }
  report.full = true;
  report.level = "full proof";
  return report;
}

/** The file may be a proof of any log's leaf: one that is not Kapsel's has no description. */
async function describeIfKnown(leaf: Uint8Array): Promise<Description | undefined> {
  try {
    return await describe(decodeLeaf(leaf));
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

function parse(data: Uint8Array): TlogProof {
  if (data.length > maxPackageBytes) throw new Refusal(`the file has more than ${maxPackageBytes} bytes`);
  if (!isTlogProof(data)) throw new Refusal("the file does not begin with c2sp.org/tlog-proof@v1");
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data.subarray(header.length));
  } catch {
    throw new Refusal("the file is not UTF-8");
  }
  const split = text.indexOf("\n\n");
  if (split < 0) throw new Refusal("there is no empty line before the checkpoint");
  const lines = text.slice(0, split).split("\n");
  let extra: Uint8Array | undefined;
  if (lines[0]!.startsWith("extra ")) {
    extra = fromBase64(lines.shift()!.slice("extra ".length));
    if (!extra) throw new Refusal("the extra data is not base64");
  }
  const index = /^index (0|[1-9][0-9]*)$/.exec(lines.shift() ?? "");
  if (!index || !Number.isSafeInteger(Number(index[1]))) throw new Refusal(`there is no line of an index up to ${Number.MAX_SAFE_INTEGER}`);
  if (lines.length > maxPathHashes) throw new Refusal(`there are ${lines.length} hashes: at most ${maxPathHashes}`);
  const path = lines.map((line, i) => {
    const hash = fromBase64(line);
    if (hash?.length !== 32) throw new Refusal(`hash ${i + 1} is not the base64 of 32 bytes`);
    return hash;
  });
  return { ...(extra ? { extra } : {}), index: Number(index[1]), path, checkpoint: text.slice(split + 2) };
}
