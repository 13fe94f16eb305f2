import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { createKapsel, EventService, IngestService, type IngestRequest, EndpointService, withRetries } from "../src/index.js";

const fast = { initialMs: 1, maxMs: 2 };
const unavailable = (delayNanos?: number) =>
  new ConnectError("away", Code.Unavailable, undefined, delayNanos === undefined ? [] : [{ desc: RetryInfoSchema, value: { retryDelay: { seconds: 0n, nanos: delayNanos } } }]);

test("reads are repeated until they succeed, after the wait that the server asks for", async () => {
  const times: number[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(EventService, {
      getEvent() {
        times.push(Date.now());
        if (times.length < 3) throw unavailable(30e6);
        return { event: { id: "evt_1" } };
      },
    });
  });
  const { events } = createKapsel({ transport: withRetries(transport, fast) });
  assert.equal((await events.getEvent({ eventId: "evt_1" })).event?.id, "evt_1");
  assert.equal(times.length, 3);
  assert.ok((times[2] as number) - (times[0] as number) >= 58);
});

test("a call that is aborted while it waits for another try is canceled", async () => {
  const aborted = new AbortController();
  const transport = createRouterTransport(({ service }) => {
    service(EventService, {
      getEvent() {
        setTimeout(() => aborted.abort(), 1);
        throw unavailable();
      },
    });
  });
  const { events } = createKapsel({ transport: withRetries(transport, { initialMs: 3_600_000, maxMs: 3_600_000, timeoutMs: 0 }) });
  await assert.rejects(events.getEvent({ eventId: "evt_1" }, { signal: aborted.signal }), (e) => e instanceof ConnectError && e.code === Code.Canceled);
});

test("what may have had an effect is not repeated, and neither is what is wrong", async () => {
  let creates = 0;
  let reads = 0;
  const transport = createRouterTransport(({ service }) => {
    service(EndpointService, {
      createEndpoint() {
        creates++;
        throw unavailable();
      },
      getEndpoint() {
        reads++;
        throw new ConnectError("no", Code.NotFound);
      },
    });
  });
  const { endpoints } = createKapsel({ transport: withRetries(transport, fast) });
  await assert.rejects(endpoints.createEndpoint({}));
  await assert.rejects(endpoints.getEndpoint({}));
  assert.deepEqual([creates, reads], [1, 1]);
});

test("what was refused before it had an effect is repeated, whatever it is", async () => {
  let creates = 0;
  const transport = createRouterTransport(({ service }) => {
    service(EndpointService, {
      createEndpoint() {
        if (++creates === 1) throw new ConnectError("slow down", Code.ResourceExhausted, undefined, [{ desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay: { nanos: 1000 } }) }]);
        return {};
      },
    });
  });
  await createKapsel({ transport: withRetries(transport, fast) }).endpoints.createEndpoint({});
  assert.equal(creates, 2);
});

function ingesting(failures: number) {
  const seen: IngestRequest[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(IngestService, {
      ingest(request) {
        seen.push(request);
        if (seen.length <= failures) throw unavailable();
        return { receipt: { eventId: "evt_1" } };
      },
      ingestBatch(request) {
        seen.push(...request.webhooks);
        if (seen.length <= 2 * failures) throw unavailable();
        return {};
      },
    });
  });
  return { seen, ingest: createKapsel({ transport: withRetries(transport, fast) }).ingest };
}
const keyOf = (r: IngestRequest | undefined) => r?.headers.find((h) => h.name === "Idempotency-Key")?.value;

test("a webhook without a key is repeated with the same new one", async () => {
  const { seen, ingest } = ingesting(2);
  await ingest.ingest({ endpointId: "ep_1", payload: new Uint8Array([1]), headers: [{ name: "content-type", value: "text/plain" }] });
  assert.equal(seen.length, 3);
  assert.ok(keyOf(seen[0]));
  assert.equal(new Set(seen.map(keyOf)).size, 1);
});

test("each webhook of a batch keeps its key", async () => {
  const { seen, ingest } = ingesting(1);
  await ingest.ingestBatch({ webhooks: [{ endpointId: "ep_1" }, { endpointId: "ep_1", headers: [{ name: "Idempotency-Key", value: "mine" }] }] });
  assert.equal(seen.length, 4);
  assert.equal(keyOf(seen[0]), keyOf(seen[2]));
  assert.equal(keyOf(seen[1]), "mine");
  assert.notEqual(keyOf(seen[0]), "mine");
});

test("a webhook with a provider's headers is left as it is, and not repeated", async () => {
  const { seen, ingest } = ingesting(1);
  await assert.rejects(ingest.ingest({ endpointId: "ep_1", headers: [{ name: "X-GitHub-Delivery", value: "1" }] }));
  assert.equal(seen.length, 1);
  assert.equal(keyOf(seen[0]), undefined);
});

test("the timeout is for all tries together", async () => {
  const transport = createRouterTransport(({ service }) => {
    service(EventService, {
      getEvent() {
        throw unavailable(40e6);
      },
    });
  });
  const began = Date.now();
  await assert.rejects(createKapsel({ transport: withRetries(transport, { maxAttempts: 1000 }) }).events.getEvent({}, { timeoutMs: 100 }));
  assert.ok(Date.now() - began < 1000);
});

test("a base URL that is none is refused with what to do", () => {
  for (const baseUrl of ["", "kapsel", "ftp://x", "https://u:p@x", "https://x?y"]) {
    assert.throws(() => createKapsel({ baseUrl }), /baseUrl/);
  }
});
