// From nothing to a proof: an endpoint, a destination, a webhook, its delivery, and the document that proves it.
import { writeFile } from "node:fs/promises";
import { createKapsel, createRoute, EventState, getVerifiedProofs, ingestAndWait } from "@kapsel-dev/sdk";

const { KAPSEL_URL = "", KAPSEL_API_KEY = "", KAPSEL_LOG_PUBLIC_KEY = "", DESTINATION_URL = "" } = process.env;
const kapsel = createKapsel({ baseUrl: KAPSEL_URL, apiKey: KAPSEL_API_KEY });
const signal = AbortSignal.timeout(60_000);

const { endpoint } = await createRoute(kapsel, { displayName: "quickstart" }, { url: DESTINATION_URL });
const payload = new TextEncoder().encode(JSON.stringify({ hello: "world" }));
const event = await ingestAndWait(kapsel, { endpointId: endpoint.id, payload }, { signal });

// The key must come from elsewhere than the server that is checked with it.
const [proof] = await getVerifiedProofs(kapsel.attestation, event.id, { trustedKeys: [KAPSEL_LOG_PUBLIC_KEY], signal });
await writeFile("proof.json", proof.json);
console.log(event.id, EventState[event.state], proof.report.level);
