// From nothing to a proof: an endpoint, a destination, a webhook, its delivery, and the document that proves it.
import { writeFile } from "node:fs/promises";
import { createKapsel, EventState, watchEvents } from "@kapsel-dev/sdk";
import { verify } from "@kapsel-dev/sdk/verify";

const { KAPSEL_URL = "http://127.0.0.1:8080", KAPSEL_API_KEY = "", DESTINATION_URL = "http://127.0.0.1:8099/echo" } = process.env;
const kapsel = createKapsel({ baseUrl: KAPSEL_URL, apiKey: KAPSEL_API_KEY });

const { endpoint } = await kapsel.endpoints.createEndpoint({ endpoint: { displayName: "quickstart" } });
const endpointId = endpoint?.id ?? "";
await kapsel.destinations.createDestination({ destination: { endpointId, url: DESTINATION_URL } });

const payload = new TextEncoder().encode(JSON.stringify({ hello: "world" }));
const send = () => void kapsel.ingest.ingest({ endpointId, payload });
for await (const event of watchEvents(kapsel.events, { filter: { endpointIds: [endpointId] } }, { onOpen: send })) {
  console.log(event.id, EventState[event.state]);
  if (event.state === EventState.DELIVERED) {
    const { packages } = await kapsel.attestation.getProofPackage({ subject: { case: "eventId", value: event.id }, wait: { seconds: 30n } }, { timeoutMs: 40_000 });
    const proof = packages[0]?.json ?? new Uint8Array();
    await writeFile("proof.json", proof);
    // The key must come from elsewhere than the server that is checked with it.
    console.log((await verify(proof, { trustedKeys: [process.env["KAPSEL_LOG_KEY"] ?? ""] })).level);
    break;
  }
}
