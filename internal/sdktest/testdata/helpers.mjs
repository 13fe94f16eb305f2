// What the helpers answer for each end of an event: helpers.mjs URL KEY LOG_KEY OTHER_KEY DESTINATION NOBODY. Writes what came of each as JSON.
import { createKapsel, createRoute, DestinationState, EventState, getVerifiedProofs, ingestAndWait, reasonOf, waitForEvent } from "@kapsel-dev/sdk";

const [baseUrl, apiKey, logKey, otherKey, url, nobody] = process.argv.slice(2);
const kapsel = createKapsel({ baseUrl, apiKey });
const payload = new TextEncoder().encode("{}");
const failure = (error) => reasonOf(error) ?? error.name;

async function send(...destinations) {
  const { endpoint } = await createRoute(kapsel, {}, ...destinations);
  const event = await ingestAndWait(kapsel, { endpointId: endpoint.id, payload });
  const proofs = await getVerifiedProofs(kapsel.attestation, event.id, { trustedKeys: [logKey] }).catch(failure);
  const proved = typeof proofs === "string" ? proofs : proofs.map(({ report }) => report.leaf.kind).join(" ");
  return { event, said: `${EventState[event.state]} ${proved}` };
}

const outcome = {};
const delivered = await send({ url });
outcome.delivered = delivered.said;
outcome.dead = (await send({ url: nobody, retryPolicy: { maxAttempts: 1 } })).said;
outcome.unmatched = (await send()).said;
outcome.unknown = await waitForEvent(kapsel.events, "evt_00000000000000000000000000").then(() => "found", failure);

const refused = await createRoute(kapsel, { displayName: "in vain of TypeScript" }, { url }, { url: "ftp://no" }).then(() => "made", failure);
const { endpoints } = await kapsel.endpoints.listEndpoints({ pageSize: 1000 });
outcome.route = `${refused} ${endpoints.filter(({ displayName }) => displayName === "in vain of TypeScript").length} left`;

outcome["wrong key"] = await getVerifiedProofs(kapsel.attestation, delivered.event.id, { trustedKeys: [otherKey] }).then(
  () => "proved",
  (error) => `${error.name} ${error.report?.checks.at(-1).name ?? error.message}`,
);

const held = await createRoute(kapsel, {}, { url, state: DestinationState.PAUSED });
const { receipt } = await kapsel.ingest.ingest({ endpointId: held.endpoint.id, payload });
outcome.paused = await waitForEvent(kapsel.events, receipt.eventId, { signal: AbortSignal.timeout(1000) }).then(() => "ended", failure);
const [ended] = await Promise.all([
  waitForEvent(kapsel.events, receipt.eventId),
  kapsel.destinations.resumeDestination({ destinationId: held.destinations[0].destination.id }),
]);
outcome.resumed = EventState[ended.state];
console.log(JSON.stringify(outcome));
