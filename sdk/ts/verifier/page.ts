// The page of the single-file verifier: a file is dropped or chosen, and checked on this machine.

import { isTlogProof, maxPackageBytes, type Report, verify, verifyTlogProof } from "../src/verify/index.js";

const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const drop = element("drop");
const file = element<HTMLInputElement>("file");
const key = element<HTMLTextAreaElement>("key");
const result = element("result");

let last: { name: string; data: Uint8Array } | undefined;

/** Makes an element. Text is only ever set as text: what a file says never becomes markup. */
function make(tag: string, className: string, ...content: (string | HTMLElement)[]): HTMLElement {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

async function show(): Promise<void> {
  if (!last) return;
  const keys = key.value.split(/\s+/).filter((text) => text !== "");
  let report: Report;
  try {
    report = await (isTlogProof(last.data) ? verifyTlogProof : verify)(last.data, { trustedKeys: keys });
  } catch (error) {
    result.replaceChildren(verdict("refused", "The check could not be made", (error as Error).message));
    return;
  }
  const parts = [headline(report, last.name)];
  if (report.leaf) parts.push(section("What the record says", rows(report.leaf)));
  if (report.tree) {
    parts.push(section("The log", rows({
      log: report.tree.origin,
      leaf: `${report.tree.leafIndex} of a tree of ${report.tree.size} leaves`,
      root: report.tree.rootHash,
      ...(report.headTime ? { signed: report.headTime.toISOString().replace("T", " ").replace(".000Z", " UTC") } : {}),
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
  result.replaceChildren(...parts);
}

function headline(report: Report, name: string): HTMLElement {
  if (report.level === "refused") return verdict("refused", "Refused", `${name} proves nothing.`);
  if (!report.full) return verdict("open", "Consistent, but the key is not checked", "Whoever made this file may have made it all up. Paste the log's key, from elsewhere than the file.");
  return verdict("full", "Full proof", "The log has committed to this record.");
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
  // One byte more than a package may have is enough to refuse it.
  last = { name: chosen.name, data: new Uint8Array(await chosen.slice(0, maxPackageBytes + 1).arrayBuffer()) };
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
