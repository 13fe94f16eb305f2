// For Node.js: HTTP/2, and gRPC. What index.ts exports works there too, over fetch.

import type { Transport } from "@connectrpc/connect";
import { nodeTransport } from "./nodetransport.js";
import type { KapselOptions } from "./transport.js";

/** How to reach Kapsel from Node.js. */
export interface KapselNodeOptions extends Omit<KapselOptions, "protocol" | "fetch"> {
  /** The protocol on the wire. Default: "connect". "grpc" needs HTTP/2. */
  readonly protocol?: "connect" | "grpc";
  /** Version of HTTP. Default: "2", over which any number of calls and streams share a connection; over http:// it is h2c. */
  readonly httpVersion?: "1.1" | "2";
}

/** Makes a transport on Node's own HTTP client, for `createKapsel({ transport })` or Connect's `createClient`. */
export function createKapselNodeTransport(options: KapselNodeOptions): Transport {
  return nodeTransport(options);
}
