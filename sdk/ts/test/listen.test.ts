import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { test } from "node:test";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { createKapsel, Failure, type Incoming, listenDeliveries, ListenService, type ReportRequest, withRetries } from "../src/index.js";

const fast = { initialMs: 1, maxMs: 2 };
const payload = new TextEncoder().encode("payload");
const headers = [{ name: "Webhook-Id", value: "evt_1" }, { name: "X-Odd", value: "?", rawValue: new Uint8Array([0xe9]) }, { name: "X-Text", value: "é" }];

/** A server with a session, of which each stream gives one delivery and breaks off, and whose reports fail twice. */
function switchboard() {
  const opened: string[] = [];
  const reports: ReportRequest[] = [];
  let failures = 2;
  const transport = createRouterTransport(({ service }) => {
    service(ListenService, {
      async *listen({ sessionId }) {
        opened.push(sessionId);
        yield { update: { case: "session", value: { id: "lsn_1" } } };
        yield { update: { case: "delivery", value: { attemptId: "att_1", payload, headers } } };
        throw new ConnectError("away", Code.Unavailable);
      },
      report(report) {
        if (failures-- > 0) throw new ConnectError("away", Code.Unavailable);
        reports.push(report);
        return {};
      },
    });
  });
  return { opened, reports, listen: createKapsel({ transport: withRetries(transport, fast) }).listen };
}

async function first(deal: (incoming: Incoming) => Promise<unknown>): Promise<ReportRequest> {
  const { listen, reports } = switchboard();
  for await (const incoming of listenDeliveries(listen)) {
    await deal(incoming);
    break;
  }
  assert.equal(reports.length, 1);
  const [report] = reports as [ReportRequest];
  assert.deepEqual([report.sessionId, report.attemptId], ["lsn_1", "att_1"]);
  assert.ok(report.startTime && report.duration && report.duration.seconds >= 0n);
  return report;
}

test("forwarding reports what came of it", async (t) => {
  const large = Buffer.alloc((64 << 10) + 1, "x");
  let got: IncomingHttpHeaders = {};
  const app = createServer(async (request, response) => {
    const body = await buffer(request);
    got = request.headers;
    switch (request.url) {
      case "/echo":
        return response.end(body);
      case "/large":
        return response.end(large);
      case "/moved":
        return response.writeHead(302, { location: "/echo" }).end();
    }
    request.socket.destroy();
  });
  await new Promise<void>((resolve) => app.listen(0, "127.0.0.1", resolve));
  t.after(() => app.close());
  const { port } = app.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;

  for (const [path, status, body] of [["/echo", 200, payload], ["/large", 200, large], ["/moved", 302, Buffer.alloc(0)]] as const) {
    const { result } = await first((incoming) => incoming.forward(url + path));
    assert.equal(result.case, "answer", path);
    if (result.case !== "answer") return;
    const read = body.subarray(0, 64 << 10);
    assert.deepEqual(
      [result.value.statusCode, result.value.bodyBytes, result.value.truncated, result.value.bodyExcerpt.length],
      [status, BigInt(read.length), body.length > read.length, Math.min(read.length, 1024)],
      path,
    );
    assert.deepEqual(Buffer.from(result.value.bodySha256), createHash("sha256").update(read).digest(), path);
    assert.deepEqual([got["webhook-id"], got["x-odd"], got["x-text"]], ["evt_1", "\xe9", "\xc3\xa9"]);
  }
  for (const [target, failure] of [
    [`${url}/silent`, Failure.PROTOCOL],
    ["http://127.0.0.1:1/", Failure.PROTOCOL], // fetch refuses the port of a protocol that nobody speaks
    [`http://127.0.0.1:${await freePort()}/`, Failure.CONNECT],
    ["http://nobody.invalid/", Failure.DNS],
    [`https://127.0.0.1:${port}/`, Failure.TLS],
    ["ftp://no", Failure.PROTOCOL],
  ] as const) {
    const { result } = await first((incoming) => incoming.forward(target));
    assert.ok(result.case === "failure" && result.value.message !== "", target);
    assert.equal(Failure[result.value.failure], Failure[failure], `${target}: ${result.value.message}`);
  }
});

/** A port that nothing listens on. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test("what a browser says of an app is reported", async () => {
  const timeout = () => Promise.reject(new DOMException("The operation timed out.", "TimeoutError"));
  const late = await first((incoming) => incoming.forward("http://localhost", timeout));
  assert.equal(late.result.case === "failure" && late.result.value.failure, Failure.TIMEOUT);
  const redirect = () => Promise.resolve(Object.defineProperty(new Response(), "type", { value: "opaqueredirect" }));
  const moved = await first((incoming) => incoming.forward("http://localhost", redirect));
  assert.match(moved.result.case === "failure" ? moved.result.value.message : "", /redirect/);
});

test("a message for people is cut to the contract, and is text", async () => {
  const { result } = await first((incoming) => incoming.fail(Failure.CONFIGURATION, "é\ud800".repeat(2000)));
  assert.equal(result.case === "failure" && result.value.message, "é\ufffd".repeat(512));
});

test("listening goes on in its session", async () => {
  const { listen, opened } = switchboard();
  const told: string[] = [];
  for await (const incoming of listenDeliveries(listen, { endpointIds: ["ep_1"] }, { backoff: fast, onSession: ({ id }) => told.push(id) })) {
    assert.equal(incoming.delivery.attemptId, "att_1");
    if (opened.length === 3) break;
  }
  assert.deepEqual([opened, told], [["", "lsn_1", "lsn_1"], ["lsn_1", "lsn_1", "lsn_1"]]);
});
