import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { createKapsel, EventService, EventState, waitForEvent } from "../src/index.js";

const backoff = { initialMs: 1, maxMs: 2 };

/** A server whose event goes through these states, one at each look, and whose stream breaks off after each message. */
function server(states: EventState[]) {
  const filters: string[] = [];
  let looks = 0;
  const transport = createRouterTransport(({ service }) => {
    service(EventService, {
      async *watchEvents({ filter }) {
        filters.push(filter?.idText ?? "");
        yield { update: { case: "heartbeat", value: {} }, resumeToken: "1" };
        throw new ConnectError("away", Code.Unavailable);
      },
      getEvent({ eventId }) {
        const state = states[looks++];
        if (state === undefined) throw new ConnectError("no such event", Code.NotFound);
        return { event: { id: eventId, state } };
      },
    });
  });
  return { filters, events: createKapsel({ transport }).events };
}

test("an event is waited for across interruptions, and looked at whenever the stream is up", async () => {
  const { events, filters } = server([EventState.PENDING, EventState.PENDING, EventState.DEAD_LETTERED]);
  const event = await waitForEvent(events, "evt_1", { backoff });
  assert.deepEqual([event.id, event.state, filters], ["evt_1", EventState.DEAD_LETTERED, ["evt_1", "evt_1", "evt_1"]]);
});

test("an event that is not there is not waited for", async () => {
  await assert.rejects(waitForEvent(server([EventState.PENDING]).events, "evt_1", { backoff }), /no such event/);
});

test("the signal's reason ends the waiting", async () => {
  const away = new Error("enough");
  const controller = new AbortController();
  const { events } = server(Array(1000).fill(EventState.PENDING));
  const onReconnect = () => controller.abort(away);
  await assert.rejects(waitForEvent(events, "evt_1", { backoff, signal: controller.signal, onReconnect }), away);
  await assert.rejects(waitForEvent(events, "evt_1", { signal: controller.signal }), away);
});
