// Exports the proof packages of an endpoint, a line of JSON with base64 for each: export.mjs URL KEY ENDPOINT
import { createKapsel, exportProofPackages } from "@kapsel-dev/sdk";

const [baseUrl, apiKey, endpointId] = process.argv.slice(2);
const kapsel = createKapsel({ baseUrl, apiKey });
for await (const { json } of exportProofPackages(kapsel.attestation, { endpointId, recorded: {} })) {
  console.log(JSON.stringify(Buffer.from(json).toString("base64")));
}
