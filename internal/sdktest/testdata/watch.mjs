// Follows events and tree heads until standard input ends, and writes a line of JSON for each.
import { createKapsel, EventState, watchEvents, watchTreeHeads } from "@kapsel-dev/sdk";
import { createKapselNodeTransport } from "@kapsel-dev/sdk/node";

const [baseUrl, apiKey, way] = process.argv.slice(2);
const kapsel = createKapsel(way === "fetch" ? { baseUrl, apiKey } : { transport: createKapselNodeTransport({ baseUrl, apiKey, protocol: way }) });
const controller = new AbortController();
process.stdin.on("end", () => controller.abort()).resume();
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const options = (stream) => ({ signal: controller.signal, backoff: { initialMs: 50, maxMs: 500 }, onReconnect: (error) => say({ interrupted: stream, error: String(error) }) });

async function events() {
  for await (const event of watchEvents(kapsel.events, {}, { ...options("events"), onOpen: () => say({ open: "events" }) })) {
    say({ event: event.id, state: EventState[event.state] });
  }
}
async function heads() {
  for await (const { treeHead, consistencyProof } of watchTreeHeads(kapsel.attestation, options("heads"))) {
    say({ head: Number(treeHead.treeSize), from: consistencyProof === undefined ? null : Number(consistencyProof.fromSize) });
  }
}
await Promise.all([events(), heads()]);
