// Archives of proof packages: what `kapsel export` writes, a gzip-compressed tar file (POSIX.1-1988 ustar).

import { Refusal, same } from "./bytes.js";
import { verify } from "./index.js";
import { maxPackageBytes } from "./package.js";
import { type Options, parseTrusted, type Report } from "./report.js";

const archiveFormat = "kapsel-proofs/v1";
const manifestName = "manifest.json";
const maxManifestBytes = 64 << 10;
const blockBytes = 512;
// A byte of gzip stands for at most some thousand.
const pieceBytes = 16 << 10;
// What is read behind an archive's end, to come to the sum that its compression ends with.
const maxAfterEnd = 1 << 20;

/** The last file of an archive. It is not signed, and proves nothing: it tells an archive that was cut short from a whole one. */
export interface Manifest {
  format: string;
  /** How many packages the archive holds. */
  packages: number;
  /** Those of the head that all packages are for; "" and 0 without a package. */
  origin: string;
  tree_size: number;
  /** The span of time that was asked for, RFC 3339; "" is no bound. */
  from: string;
  to: string;
}

/** What came out of the verification of an archive. */
export interface ArchiveReport {
  /** Whether every package is a full proof, and the archive is whole. */
  full: boolean;
  level: Report["level"];
  /** Why it was refused: the check that failed, as in a package's report, and what differs in which file. */
  refusal?: { check: string; detail: string };
  manifest?: Manifest;
  /** Packages that were verified, and of these the attempts by outcome, the dead letters, and the leaves that erasures name. */
  packages: number;
  succeeded: number;
  failed: number;
  unknown: number;
  deadLetters: number;
  erasedLeaves: number;
  /** When the earliest attempt began and the latest one did, RFC 3339 with nanoseconds; undefined without any. */
  first?: string;
  last?: string;
  /** The head that all packages are for, and when the log signed it; undefined without a package. */
  tree?: { origin: string; size: number; rootHash: string };
  headTime?: Date;
}

/** Where an archive is read from. */
export type ArchiveData = Blob | ReadableStream<Uint8Array> | Uint8Array;

/** Whether data begins like an archive: it is compressed. */
export const isArchive = (data: Uint8Array): boolean => data.length > 2 && data[0] === 0x1f && data[1] === 0x8b;

/**
 * Checks each package of an archive, and that none is missing of those that its manifest counts, in bounded memory. The report of an
 * archive that is refused says why, and what was verified before; `each` is called with the report of every package, and what it throws ends
 * the verification. It throws also if a trusted key is malformed. In Node.js, `await fs.openAsBlob(path)` and
 * `Readable.toWeb(fs.createReadStream(path))` give a file's data.
 */
export async function verifyArchive(
  data: ArchiveData,
  options: Options & { each?: (name: string, report: Report) => void | Promise<void> } = {},
): Promise<ArchiveReport> {
  parseTrusted(options.trustedKeys);
  const report: ArchiveReport = {
    full: false, level: "refused", packages: 0, succeeded: 0, failed: 0, unknown: 0, deadLetters: 0, erasedLeaves: 0,
  };
  const files = new Files(data);
  const archive = new Archive(report, options);
  try {
    for (let file = await files.next(archive); file !== undefined; file = await files.next(archive)) {
      await archive.take(file.name, file.data);
    }
    archive.end();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    report.refusal = { check: error.check, detail: error.message };
    return report;
  } finally {
    await files.close();
  }
  report.full = (options.trustedKeys ?? []).length > 0;
  report.level = report.full ? "full proof" : "consistent, but the key is not checked";
  return report;
}

class Refused extends Refusal {
  constructor(
    readonly check: string,
    detail: string,
  ) {
    super(detail);
  }
}

const quoted = (name: string): string => JSON.stringify(name.slice(0, 100));

/** What is known of an archive while it is read. */
class Archive {
  #last = -1;

  constructor(
    private readonly report: ArchiveReport,
    private readonly options: Parameters<typeof verifyArchive>[1] & object,
  ) {}

  /** Refuses a file before it is read. */
  check(name: string, size: number): void {
    const most = name === manifestName ? maxManifestBytes : maxPackageBytes;
    if (this.report.manifest) throw new Refused("format", `${quoted(name)}: comes after the manifest`);
    if (size > most) throw new Refused("format", `${quoted(name)}: has more than ${most} bytes`);
  }

  async take(name: string, data: Uint8Array): Promise<void> {
    if (name === manifestName) this.#manifest(data);
    else await this.#package(name, data);
  }

  end(): void {
    if (!this.report.manifest) {
      throw new Refused("format", `the archive has no manifest at its end: it was cut short after ${this.report.packages} packages`);
    }
    if (this.report.packages === 0) throw new Refused("format", "the archive holds no packages: it proves nothing");
  }

  #manifest(data: Uint8Array): void {
    const manifest = parseManifest(data);
    const { packages, tree } = this.report;
    if (!manifest) throw new Refused("format", `"${manifestName}": is not a manifest of ${archiveFormat}`);
    if (manifest.packages !== packages) {
      throw new Refused("format", `"${manifestName}": counts ${manifest.packages} packages, and there are ${packages}`);
    }
    if (manifest.origin !== (tree?.origin ?? "") || manifest.tree_size !== (tree?.size ?? 0)) {
      const says = `${quoted(manifest.origin)} and ${manifest.tree_size} leaves`;
      throw new Refused("format", `"${manifestName}": says log ${says}, and the packages say ${quoted(tree?.origin ?? "")} and ${tree?.size ?? 0}`);
    }
    this.report.manifest = manifest;
  }

  async #package(name: string, data: Uint8Array): Promise<void> {
    const verified = await verify(data, this.options);
    const failed = verified.checks.at(-1);
    if (verified.level === "refused" || !verified.tree) {
      throw new Refused(failed?.name ?? "format", `${quoted(name)}: ${failed?.detail}`);
    }
    const { leafIndex, origin, size, rootHash } = verified.tree;
    this.report.tree ??= { origin, size, rootHash };
    const { tree } = this.report;
    if (name !== `proofs/${String(leafIndex).padStart(16, "0")}.proof.json`) throw new Refused("format", `${quoted(name)}: is of leaf ${leafIndex}`);
    if (leafIndex <= this.#last) throw new Refused("format", `${quoted(name)}: is not after leaf ${this.#last}`);
    if (origin !== tree.origin || size !== tree.size || rootHash !== tree.rootHash) {
      throw new Refused("format", `${quoted(name)}: is for another head than the packages before it`);
    }
    this.#last = leafIndex;
    this.#count(verified);
    await this.options.each?.(name, verified);
  }

  #count({ leaf, headTime }: Report): void {
    const { report } = this;
    report.packages++;
    if (headTime) report.headTime = headTime;
    switch (leaf?.["kind"]) {
      case "dead_letter":
        report.deadLetters++;
        return;
      case "erasure":
        report.erasedLeaves += (leaf["leaf_indexes"] as number[]).length;
        return;
      case "attempt": {
        const outcome = leaf["outcome"];
        report[outcome === "succeeded" || outcome === "unknown" ? outcome : "failed"]++;
        const began = leaf["started_at"] as string | undefined;
        if (began === undefined) return;
        // Times of one form, in UTC: their order is that of their texts.
        if (report.first === undefined || began < report.first) report.first = began;
        if (report.last === undefined || began > report.last) report.last = began;
      }
    }
  }
}

function parseManifest(data: Uint8Array): Manifest | undefined {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const manifest: Manifest = { format: "", packages: 0, origin: "", tree_size: 0, from: "", to: "", ...value };
  const numbers = [manifest.packages, manifest.tree_size].every(Number.isSafeInteger);
  const texts = [manifest.origin, manifest.from, manifest.to].every((text) => typeof text === "string");
  return manifest.format === archiveFormat && numbers && texts ? manifest : undefined;
}

/**
 * The files of a compressed archive, one at a time. Each must have the very header that `kapsel export` gives it: what readers of tar files think
 * differently about is refused.
 */
class Files {
  readonly #unpacked: Unpacked;
  #buffer = new Uint8Array();
  #padding = 0;
  #begun = false;

  constructor(data: ArchiveData) {
    this.#unpacked = new Unpacked(data);
  }

  /** The next file that archive does not refuse by its name and size, undefined at the end. */
  async next(archive: Archive): Promise<{ name: string; data: Uint8Array } | undefined> {
    if (!zero(await this.#read(this.#padding))) throw this.#broken("there are bytes between two files");
    const block = await this.#read(blockBytes);
    if (block.length === 0) return undefined;
    if (block.length < blockBytes) throw this.#broken("in the middle of a header");
    if (zero(block)) {
      const second = await this.#read(blockBytes);
      if (second.length % blockBytes !== 0 || !zero(second)) throw this.#broken("with a block that is none");
      await this.#read(maxAfterEnd);
      return undefined;
    }
    const { name, size } = this.#header(block);
    archive.check(name, size);
    const data = await this.#read(size);
    if (data.length < size) throw new Refused("format", `${quoted(name)}: breaks off`);
    this.#padding = (blockBytes - (size % blockBytes)) % blockBytes;
    return { name, data };
  }

  close(): Promise<void> {
    return this.#unpacked.close();
  }

  #header(block: Uint8Array): { name: string; size: number } {
    const text = (at: number, length: number): string => new TextDecoder("latin1").decode(block.subarray(at, at + length));
    const name = text(0, 100).split("\0", 1)[0]!;
    const digits = text(124, 11);
    const size = /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : -1;
    if (size < 0 || !same(block, ustarHeader(name, size))) {
      throw new Refused("format", `${quoted(name)}: is not a plain file, as kapsel export writes them`);
    }
    return { name, size };
  }

  /** Reads so many bytes, fewer only at the end. */
  async #read(length: number): Promise<Uint8Array> {
    const read = new Uint8Array(length);
    let at = 0;
    while (at < length) {
      if (this.#buffer.length === 0) {
        const chunk = await this.#unpacked.read().catch((error: unknown) => {
          throw this.#begun ? this.#broken(String(error)) : new Refused("format", "the file is not a compressed archive");
        });
        if (chunk === undefined) break;
        this.#begun = true;
        this.#buffer = chunk;
      }
      const part = this.#buffer.subarray(0, length - at);
      read.set(part, at);
      at += part.length;
      this.#buffer = this.#buffer.subarray(part.length);
    }
    return read.subarray(0, at);
  }

  #broken(how: string): Refused {
    return new Refused("format", `the archive breaks off: ${how}`);
  }
}

const zero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

/** The header of a file in an archive, POSIX.1-1988. */
function ustarHeader(name: string, size: number): Uint8Array {
  const block = new Uint8Array(blockBytes);
  const put = (at: number, text: string) => {
    for (let i = 0; i < text.length; i++) block[at + i] = text.charCodeAt(i);
  };
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, "0");
  put(0, name);
  put(100, "0000644\0" + "0000000\0" + "0000000\0"); // mode, user and group
  put(124, `${octal(size, 11)}\0${octal(0, 11)}\0        0`); // size, time, room for the sum, type
  put(257, "ustar\0" + "00");
  put(329, "0000000\0" + "0000000\0"); // device
  put(148, `${octal(block.reduce((sum, byte) => sum + byte, 0), 6)}\0 `);
  return block;
}

/**
 * What gzip has packed. It is fed one piece at a time, and only when something is asked for: pipeThrough would unpack ahead, in Node.js up to
 * hundreds of megabytes.
 */
class Unpacked {
  readonly #source: ReadableStreamDefaultReader<Uint8Array>;
  readonly #input: WritableStreamDefaultWriter<BufferSource>;
  readonly #output: ReadableStreamDefaultReader<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(); // of the source, not fed yet
  #fed: Promise<void> = Promise.resolve();
  #pending: Promise<ReadableStreamReadResult<Uint8Array>> | undefined;

  constructor(data: ArchiveData) {
    const blob = data instanceof Uint8Array ? new Blob([data as BlobPart]) : data;
    this.#source = (blob instanceof Blob ? blob.stream() : blob).getReader();
    const { readable, writable } = new DecompressionStream("gzip");
    this.#input = writable.getWriter();
    this.#output = readable.getReader();
    handled(this.#input.closed, this.#output.closed);
  }

  /** The next bytes, undefined at the end. */
  async read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    this.#pending ??= handled(this.#output.read());
    for (;;) {
      const result = await Promise.race([this.#pending, this.#fed]);
      if (result) {
        this.#pending = undefined;
        return result.value as Uint8Array<ArrayBuffer> | undefined;
      }
      this.#fed = handled(this.#feed());
    }
  }

  async #feed(): Promise<void> {
    if (this.#chunk.length === 0) {
      const { done, value } = await this.#source.read();
      if (done) {
        await this.#input.close();
        return new Promise(() => {}); // all that is left comes out by itself
      }
      this.#chunk = value;
    }
    const piece = this.#chunk.subarray(0, pieceBytes);
    this.#chunk = this.#chunk.subarray(piece.length);
    await this.#input.write(piece as BufferSource);
  }

  async close(): Promise<void> {
    await Promise.allSettled([this.#source.cancel(), this.#input.abort(), this.#output.cancel()]);
  }
}

/** Leaves a rejection to whoever awaits the promise. */
function handled<P extends Promise<unknown>>(promise: P, ...more: Promise<unknown>[]): P {
  for (const p of [promise, ...more]) p.catch(() => undefined);
  return promise;
}
