import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { constants, createServer as createHTTP2Server, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { after, test } from "node:test";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { createKapsel, EventService } from "../src/index.js";
import { nodeTransport } from "../src/nodetransport.js";

const adapter = connectNodeAdapter({
  routes(router: ConnectRouter) {
    router.service(EventService, { getEvent: () => ({ event: { id: randomBytes(2000).toString("hex") } }) });
  },
});

async function listening(server: Server): Promise<number> {
  server.on("connection", (socket: Socket) => after(() => socket.destroy()));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => server.close());
  return (server.address() as AddressInfo).port;
}

const port = await listening(createHTTP2Server(adapter) as Server);

/** Stands before the server, and says no word any more on the first connection once so many bytes of the answer have passed. */
async function dying(bytes: number): Promise<string> {
  let connections = 0;
  const proxy = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    client.on("error", () => undefined);
    upstream.on("error", () => undefined);
    after(() => upstream.destroy());
    client.pipe(upstream);
    if (++connections > 1) {
      upstream.pipe(client);
      return;
    }
    let left = bytes;
    upstream.on("data", (chunk) => {
      client.write(chunk.subarray(0, Math.max(left, 0)));
      left -= chunk.length;
    });
  });
  return `http://127.0.0.1:${await listening(proxy)}`;
}

for (const protocol of ["connect", "grpc"] as const) {
  for (const bytes of [0, 20, 1000]) {
    test(`a connection that dies without a word: ${protocol}, after ${bytes} bytes`, async () => {
      const retry = { maxAttempts: 20, initialMs: 1, maxMs: 2 };
      const transport = nodeTransport({ baseUrl: await dying(bytes), protocol, retry }, { pingIntervalMs: 50, pingTimeoutMs: 1000 });
      const { event } = await createKapsel({ transport }).events.getEvent({ eventId: "evt_1" });
      assert.equal(event?.id.length, 4000);
    });
  }

  test(`a proxy whose connection to the server broke: ${protocol}`, async () => {
    let calls = 0;
    const proxy = createHTTP2Server((request: Http2ServerRequest, response: Http2ServerResponse) => {
      if (++calls > 2) {
        adapter(request, response);
        return;
      }
      response.writeHead(200, { "content-type": request.headers["content-type"] as string });
      response.write("\0", () => response.stream.close(constants.NGHTTP2_INTERNAL_ERROR));
    });
    const baseUrl = `http://127.0.0.1:${await listening(proxy as Server)}`;
    const transport = nodeTransport({ baseUrl, protocol, retry: { initialMs: 1, maxMs: 2 } });
    const { event } = await createKapsel({ transport }).events.getEvent({ eventId: "evt_1" });
    assert.equal(event?.id.length, 4000);
    assert.equal(calls, 3);
  });
}
