import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer as createHTTP1Server } from "node:http";
import { createServer as createHTTP2Server } from "node:http2";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { after, test } from "node:test";
import { Code, type ConnectRouter, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { AttestationService, createKapsel, EndpointService, EventService, exportProofPackages, type Kapsel } from "../src/index.js";
import { createKapselNodeTransport } from "../src/node.js";

const PACKAGES = 6;
const fast = { initialMs: 1, maxMs: 2 };
let created = 0;

// Random bytes do not get fewer by compression.
const adapter = connectNodeAdapter({
  routes(router: ConnectRouter) {
    router.service(EventService, { getEvent: () => ({ event: { id: randomBytes(2000).toString("hex") } }) });
    router.service(EndpointService, {
      createEndpoint() {
        created++;
        return {};
      },
    });
    router.service(AttestationService, {
      async *exportProofPackages({ resumeToken }) {
        for (let i = Number(resumeToken); i < PACKAGES; i++) {
          yield { packages: [{ json: randomBytes(2000) }], resumeToken: String(i + 1) };
        }
      },
    });
  },
});

async function listening<S extends Server>(server: S): Promise<S> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => server.close());
  return server;
}

const servers = {
  "1.1": await listening(createHTTP1Server(adapter)),
  "2": await listening(createHTTP2Server(adapter) as Server),
};

// The first fetch of a process loads its parser while it connects, and waits for ever for a connection that ends meanwhile (undici of Node.js 20).
await (await fetch(`http://127.0.0.1:${(servers["1.1"].address() as AddressInfo).port}`)).text();

/** How a connection breaks: once so many bytes of the answer have passed, or before there is a request when that is negative. */
interface Break {
  readonly reset: boolean;
  readonly bytes: number;
}

/** Stands before a server and breaks its first two connections. */
async function breaking(server: Server, { reset, bytes }: Break) {
  const state = { connections: 0, url: "" };
  const open = new Set<Socket>();
  const breaker = await listening(
    createServer((client) => {
      const broken = ++state.connections <= 2;
      const end = () => (reset ? client.resetAndDestroy() : client.end(() => client.destroy()));
      open.add(client.on("error", () => undefined));
      if (broken && bytes < 0) {
        end();
        return;
      }
      const upstream = connect((server.address() as AddressInfo).port, "127.0.0.1");
      open.add(upstream.on("error", () => undefined));
      client.pipe(upstream);
      if (!broken) {
        upstream.pipe(client);
        return;
      }
      let left = bytes;
      upstream.on("data", (chunk) => {
        client.write(chunk.subarray(0, left));
        left -= chunk.length;
        if (left <= 0) {
          upstream.destroy();
          end();
        }
      });
    }),
  );
  after(() => open.forEach((socket) => socket.destroy()));
  state.url = `http://127.0.0.1:${(breaker.address() as AddressInfo).port}`;
  return state;
}

const ways: Record<string, { server: Server; client(baseUrl: string): Kapsel }> = {
  fetch: { server: servers["1.1"], client: (baseUrl) => createKapsel({ baseUrl, retry: fast }) },
  "Connect over HTTP/1.1": {
    server: servers["1.1"],
    client: (baseUrl) => createKapsel({ transport: createKapselNodeTransport({ baseUrl, httpVersion: "1.1", retry: fast }) }),
  },
  "Connect over HTTP/2": { server: servers["2"], client: (baseUrl) => createKapsel({ transport: createKapselNodeTransport({ baseUrl, retry: fast }) }) },
  gRPC: { server: servers["2"], client: (baseUrl) => createKapsel({ transport: createKapselNodeTransport({ baseUrl, protocol: "grpc", retry: fast }) }) },
};

for (const [name, way] of Object.entries(ways)) {
  for (const reset of [false, true]) {
    for (const bytes of [-1, 0, 20, 1000]) {
      test(`connections that break: ${name}, ${reset ? "reset" : "ended"} ${bytes < 0 ? "before the request" : `after ${bytes} bytes`}`, async () => {
        const reading = await breaking(way.server, { reset, bytes });
        const { event } = await way.client(reading.url).events.getEvent({ eventId: "evt_1" });
        assert.equal(event?.id.length, 4000);
        assert.ok(reading.connections >= 3);

        const streaming = await breaking(way.server, { reset, bytes });
        let exported = 0;
        for await (const _ of exportProofPackages(way.client(streaming.url).attestation, {}, { backoff: fast })) {
          exported++;
        }
        assert.equal(exported, PACKAGES);
        assert.ok(streaming.connections >= 3);

        const writing = await breaking(way.server, { reset, bytes });
        created = 0;
        await way.client(writing.url).endpoints.createEndpoint({ endpoint: {} }).catch((error: unknown) => {
          const { code } = ConnectError.from(error);
          assert.ok([Code.Unavailable, Code.Aborted, Code.Unknown].includes(code), String(error));
        });
        assert.ok(created <= 1);
      });
    }
  }
}
