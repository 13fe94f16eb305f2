// How long a verification takes: npm --prefix sdk/ts run bench:verify. Not a test: timings are no verdict.
import { readFileSync } from "node:fs";
import { verify } from "../.build/src/verify/index.js";

const data = new Uint8Array(readFileSync(new URL("../../go/verify/testdata/attempt.proof.json", import.meta.url)));
const options = { trustedKeys: ["log.example.com/log/1+4a5917dc+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"] };
const took = [];
for (let i = 0; i < 1200; i++) {
  const began = performance.now();
  if (!(await verify(data, options)).full) throw new Error("not a full proof");
  took.push(performance.now() - began);
}
const first = took[0];
const rest = took.slice(200).sort((a, b) => a - b);
console.log(JSON.stringify({ first_ms: +first.toFixed(2), p50_ms: +rest[500].toFixed(2), p99_ms: +rest[990].toFixed(2) }));
