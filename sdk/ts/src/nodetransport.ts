import type { Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import type { KapselNodeOptions } from "./node.js";
import { withRetries } from "./retry.js";
import { authorize, checkedBaseUrl } from "./transport.js";

// A connection of HTTP/2 that has died without a word is found out by these, in time for another try within a call's 30 seconds. Without
// them every call and stream would go on over it, until the kernel gives it up after a quarter of an hour.
const PINGS = { pingIntervalMs: 10_000, pingTimeoutMs: 10_000 };

export function nodeTransport(options: KapselNodeOptions, pings = PINGS): Transport {
  const settings = {
    baseUrl: checkedBaseUrl(options.baseUrl),
    interceptors: [...(options.interceptors ?? []), ...authorize(options.apiKey)],
    ...pings,
  };
  const httpVersion = options.httpVersion ?? "2";
  const transport =
    options.protocol === "grpc"
      ? createGrpcTransport(settings)
      : httpVersion === "2"
        ? createConnectTransport({ ...settings, httpVersion: "2" })
        : createConnectTransport({ ...settings, httpVersion: "1.1" });
  return withRetries(transport, options.retry);
}
