// The page of the single-file verifier: a file is dropped or chosen, and checked on this machine.

import { type ArchiveReport, isArchive, isTlogProof, maxPackageBytes, type Report, verify, verifyArchive, verifyTlogProof } from "../src/verify/index.js";

const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const drop = element("drop");
const file = element<HTMLInputElement>("file");
const key = element<HTMLTextAreaElement>("key");
const result = element("result");

let last: File | undefined;
// What is shown is of the last file and keys: an archive that is still being checked then is left.
let shown = 0;

/** Makes an element. Text is only ever set as text: what a file says never becomes markup. */
function make(tag: string, className: string, ...content: (string | HTMLElement)[]): HTMLElement {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

async function show(): Promise<void> {
  if (!last) return;
  const turn = ++shown;
  const trustedKeys = key.value.split(/\s+/).filter((text) => text !== "");
  let parts: HTMLElement[];
  try {
    // One byte more than a package may have is enough to refuse it.
    const data = new Uint8Array(await last.slice(0, maxPackageBytes + 1).arrayBuffer());
    if (isArchive(data)) {
      parts = describeArchive(await checkArchive(last, trustedKeys, turn), last.name);
    } else {
      parts = describePackage(await (isTlogProof(data) ? verifyTlogProof : verify)(data, { trustedKeys }), last.name);
    }
  } catch (error) {
    parts = [verdict("refused", "The check could not be made", (error as Error).message)];
  }
  if (turn === shown) result.replaceChildren(...parts);
}

async function checkArchive(file: File, trustedKeys: string[], turn: number): Promise<ArchiveReport> {
  let packages = 0;
  const count = (): void => result.replaceChildren(verdict("open", "Checking", `${packages} records of ${file.name} are checked.`));
  const timer = setInterval(count, 250);
  try {
    return await verifyArchive(file, {
      trustedKeys,
      each: () => {
        packages++;
        if (turn !== shown) throw new Error("another file was chosen");
      },
    });
  } finally {
    clearInterval(timer);
  }
}

function describeArchive(report: ArchiveReport, name: string): HTMLElement[] {
  const parts = [headline(report, name, `The log has committed to each of the ${report.packages} records.`)];
  if (report.refusal) parts.push(section("What is wrong", rows({ [report.refusal.check]: report.refusal.detail })));
  parts.push(section(report.refusal ? "What was checked before" : "What the archive holds", rows({
    records: report.packages,
    delivered: report.succeeded,
    failed: report.failed,
    "of unknown end": report.unknown,
    "dead letters": report.deadLetters,
    "erased later": report.erasedLeaves,
    ...(report.first && { "attempts from": report.first, to: report.last }),
  })));
  if (report.tree) {
    parts.push(section("The log", rows({
      log: report.tree.origin, tree: `${report.tree.size} leaves`, root: report.tree.rootHash, ...signedAt(report.headTime),
    })));
  }
  return parts;
}

const signedAt = (at: Date | undefined): Record<string, string> => (at ? { signed: at.toISOString().replace("T", " ").replace(".000Z", " UTC") } : {});

function describePackage(report: Report, name: string): HTMLElement[] {
  const parts = [headline(report, name, "The log has committed to this record.")];
  if (report.leaf) parts.push(section("What the record says", rows(report.leaf)));
  if (report.tree) {
    parts.push(section("The log", rows({
      log: report.tree.origin,
      leaf: `${report.tree.leafIndex} of a tree of ${report.tree.size} leaves`,
      root: report.tree.rootHash,
      ...signedAt(report.headTime),
    })));
  }
  const checks = make("ul", "checks");
  for (const check of report.checks) {
    checks.append(make("li", check.ok ? "ok" : "wrong", make("span", "mark", check.ok ? "✓" : "✗"), make("b", "", check.name), make("span", "detail", check.detail)));
  }
  for (const name of report.notChecked) {
    checks.append(make("li", "open", make("span", "mark", "–"), make("b", "", "cosignature"), make("span", "detail", `${name} has a type that this version does not know`)));
  }
  parts.push(section("What was checked", checks));
  return parts;
}

function headline(report: Pick<Report, "level" | "full">, name: string, proved: string): HTMLElement {
  if (report.level === "refused") return verdict("refused", "Refused", `${name} proves nothing.`);
  if (!report.full) return verdict("open", "Consistent, but the key is not checked", "Whoever made this file may have made it all up. Paste the log's key, from elsewhere than the file.");
  return verdict("full", "Full proof", proved);
}

const verdict = (kind: string, title: string, text: string): HTMLElement => make("div", `verdict ${kind}`, make("h2", "", title), make("p", "", text));
const section = (title: string, content: HTMLElement): HTMLElement => make("section", "", make("h3", "", title), content);

function rows(fields: Record<string, unknown>): HTMLElement {
  const list = make("dl", "");
  for (const [name, value] of Object.entries(fields)) {
    list.append(make("dt", "", name.replaceAll("_", " ")), make("dd", "", typeof value === "object" ? JSON.stringify(value) : String(value)));
  }
  return list;
}

async function take(chosen: File | undefined): Promise<void> {
  if (!chosen) return;
  last = chosen;
  await show();
}

file.addEventListener("change", () => void take(file.files?.[0]));
key.addEventListener("input", () => void show());
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") void take((event as DragEvent).dataTransfer?.files[0]);
  });
}
