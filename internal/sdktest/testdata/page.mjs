// What a page does with the SDK, over the protocol that its address names: an endpoint, a destination, a webhook, its delivery as the
// stream tells it, its proof package, and the next tree head. The outcome is left in window.outcome.
import { createKapsel, EventState, reasonOf, watchEvents, watchTreeHeads } from "@kapsel-dev/sdk";
import { verify } from "@kapsel-dev/sdk/verify";

async function run() {
  const given = new URLSearchParams(location.hash.slice(1));
  const kapsel = createKapsel({ baseUrl: given.get("url"), apiKey: given.get("key"), protocol: given.get("protocol") });
  const { endpoint } = await kapsel.endpoints.createEndpoint({ endpoint: { displayName: "from a page" } });
  await kapsel.destinations.createDestination({ destination: { endpointId: endpoint.id, url: given.get("destination") } });
  const send = () => void kapsel.ingest.ingest({ endpointId: endpoint.id, payload: new TextEncoder().encode("from a page") });
  const states = [];
  let eventId;
  for await (const event of watchEvents(kapsel.events, { filter: { endpointIds: [endpoint.id] } }, { onOpen: send })) {
    states.push(EventState[event.state]);
    eventId = event.id;
    if (event.state === EventState.DELIVERED) break;
  }
  const { packages } = await kapsel.attestation.getProofPackage({ subject: { case: "eventId", value: eventId }, wait: { seconds: 30n } }, { timeoutMs: 40_000 });
  let heads = 0;
  for await (const update of watchTreeHeads(kapsel.attestation)) {
    heads = Number(update.treeHead.treeSize);
    break;
  }
  const reason = await kapsel.events.getEvent({ eventId: "evt_00000000000000000000000000" }).then(() => "none", reasonOf);
  const { level } = await verify(packages[0].json, { trustedKeys: [given.get("log")] });
  return { states, level, heads, reason, proof: new TextDecoder().decode(packages[0].json) };
}

window.outcome = run().catch((error) => ({ error: String(error) }));
