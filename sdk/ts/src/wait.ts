import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import type { Kapsel } from "./client.js";
import { type Event, type EventService, EventState } from "./gen/kapsel/v1/event_pb.js";
import type { IngestRequestSchema } from "./gen/kapsel/v1/ingest_pb.js";
import { resume, type StreamOptions } from "./stream.js";

/**
 * Waits until an event has ended, and returns it as `getEvent` does: each of its deliveries was delivered, given up or cancelled, or it
 * matched no destination. Its state says which. It follows the event's state, and bridges interruptions. Retries may take days, so give a
 * signal, such as `AbortSignal.timeout(60_000)`: when it is aborted first, its reason is thrown.
 */
export async function waitForEvent(
  client: Pick<Client<typeof EventService>, "getEvent" | "watchEvents">,
  eventId: string,
  options: StreamOptions = {},
): Promise<Event> {
  const stream = {
    /** Looks at the event when the stream is up, since what happened before that is not told, and whenever the stream tells of it. */
    async *open(_: undefined, signal: AbortSignal): AsyncIterable<Event | undefined> {
      let up = false;
      for await (const { update } of client.watchEvents({ filter: { idText: eventId } }, { signal, timeoutMs: 0 })) {
        yield up && update.case !== "event" ? undefined : (await client.getEvent({ eventId }, { signal })).event;
        up = true;
      }
    },
    tokenOf: () => undefined,
  };
  for await (const event of resume(stream, options)) {
    if (event !== undefined && event.state !== EventState.PENDING) {
      return event;
    }
  }
  throw options.signal?.reason;
}

/** Sends a webhook and waits until its event has ended, as `waitForEvent` does. */
export async function ingestAndWait(
  client: Pick<Kapsel, "ingest" | "events">,
  webhook: MessageInitShape<typeof IngestRequestSchema>,
  options: StreamOptions = {},
): Promise<Event> {
  const { receipt } = await client.ingest.ingest(webhook, options.signal ? { signal: options.signal } : {});
  return waitForEvent(client.events, receipt?.eventId ?? "", options);
}
