// How long a verification takes: npm --prefix sdk/ts run bench:verify. Not a test: timings are no verdict. What a busy machine adds
// is seen in control_p99_ms, which is of a loop that computes for as long as a verification does and waits for nothing.
import { readFileSync } from "node:fs";
import { verify } from "../.build/src/verify/index.js";

const data = new Uint8Array(readFileSync(new URL("../../go/verify/testdata/attempt.proof.json", import.meta.url)));
const options = { trustedKeys: ["log.example.com/log/1+4a5917dc+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"] };

async function measure(count, work) {
  const took = [];
  for (let i = 0; i < count; i++) {
    const began = performance.now();
    await work();
    took.push(performance.now() - began);
  }
  return took.sort((a, b) => a - b);
}
const round = (value) => +value.toFixed(2);
async function once() {
  if (!(await verify(data, options)).full) throw new Error("not a full proof");
}

const [first] = await measure(1, once);
await measure(200, once);
const before = process.cpuUsage();
const took = await measure(2000, once);
const { user, system } = process.cpuUsage(before);
const control = await measure(2000, () => {
  for (const until = performance.now() + took[1000]; performance.now() < until; );
});
console.log(JSON.stringify({
  first_ms: round(first), p50_ms: round(took[1000]), p99_ms: round(took[1980]), cpu_ms: round((user + system) / 1000 / 2000), control_p99_ms: round(control[1980]),
}));
