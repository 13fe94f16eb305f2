// What a page does with the SDK, over the protocol that its address names: an endpoint and a destination, a session that listens beside it,
// a webhook, its deliveries as the stream tells them, their verified proof packages, and the next tree head. The outcome is left in
// window.outcome.
import { createKapsel, createRoute, EventState, getVerifiedProofs, ingestAndWait, listenDeliveries, reasonOf, watchEvents, watchTreeHeads } from "@kapsel-dev/sdk";

async function run() {
  const given = new URLSearchParams(location.hash.slice(1));
  const kapsel = createKapsel({ baseUrl: given.get("url"), apiKey: given.get("key"), protocol: given.get("protocol") });
  const { endpoint } = await createRoute(kapsel, { displayName: "from a page" }, { url: given.get("destination") });
  const controller = new AbortController();
  const { signal } = controller;

  const heard = [];
  const listening = new Promise((resolve) => {
    (async () => {
      for await (const incoming of listenDeliveries(kapsel.listen, { endpointIds: [endpoint.id] }, { signal, onSession: resolve })) {
        heard.push(new TextDecoder().decode(incoming.delivery.payload));
        await incoming.answer(204);
      }
    })();
  });
  const states = [];
  const watching = new Promise((resolve) => {
    (async () => {
      for await (const event of watchEvents(kapsel.events, { filter: { endpointIds: [endpoint.id] } }, { signal, onOpen: resolve })) {
        states.push(EventState[event.state]);
        if (event.state === EventState.DELIVERED) controller.abort();
      }
    })();
  });
  await Promise.all([listening, watching]);

  const event = await ingestAndWait(kapsel, { endpointId: endpoint.id, payload: new TextEncoder().encode("from a page") });
  const proofs = await getVerifiedProofs(kapsel.attestation, event.id, { trustedKeys: [given.get("log")] });
  let heads = 0;
  for await (const update of watchTreeHeads(kapsel.attestation)) {
    heads = Number(update.treeHead.treeSize);
    break;
  }
  const reason = await kapsel.events.getEvent({ eventId: "evt_00000000000000000000000000" }).then(() => "none", reasonOf);
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
  return { states, heard, heads, reason, proofs: proofs.map(({ json }) => new TextDecoder().decode(json)) };
}

window.outcome = run().catch((error) => ({ error: String(error) }));
