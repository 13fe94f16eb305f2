import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { endingWithSignal } from "./fetch.js";
import { type RetryOptions, withRetries } from "./retry.js";

/** How to reach Kapsel. */
export interface KapselOptions {
  /** Where Kapsel is served, such as "https://kapsel.example.com". */
  readonly baseUrl: string;
  /** API key of the tenant, kps_…, or a function that gives it, for keys that change. Without one only what is public can be called. */
  readonly apiKey?: string | (() => string | Promise<string>);
  /** Retries and timeouts, where the defaults do not fit: 5 tries, 30 seconds in all. */
  readonly retry?: Partial<RetryOptions>;
  /** Interceptors of Connect, the first one outermost. They see each try. */
  readonly interceptors?: Interceptor[];
  /** The protocol on the wire. Default: "connect". */
  readonly protocol?: "connect" | "grpc-web";
  /** Another fetch than the global one. */
  readonly fetch?: typeof globalThis.fetch;
}

/** Makes a transport for `createClient` of @connectrpc/connect. It works wherever there is fetch: browsers, Node.js, workers. */
export function createKapselTransport(options: KapselOptions): Transport {
  const settings = {
    baseUrl: checkedBaseUrl(options.baseUrl),
    interceptors: [...(options.interceptors ?? []), ...authorize(options.apiKey)],
    fetch: endingWithSignal(options.fetch ?? ((input, init) => globalThis.fetch(input, init))),
  };
  const transport =
    options.protocol === "grpc-web" ? createGrpcWebTransport(settings) : createConnectTransport({ ...settings, useBinaryFormat: true });
  return withRetries(transport, options.retry);
}

/** Refuses what is no address of a server, instead of failing later with an error about something else. */
export function checkedBaseUrl(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new ConnectError(`baseUrl ${JSON.stringify(text)} is not a URL: give one such as "https://kapsel.example.com"`, Code.InvalidArgument);
  }
  if (!/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw new ConnectError("baseUrl must be an http or https URL without user, query and fragment", Code.InvalidArgument);
  }
  return text.replace(/\/+$/, "");
}

/** Adds the API key to each call. */
export function authorize(apiKey: KapselOptions["apiKey"]): Interceptor[] {
  if (apiKey === undefined) {
    return [];
  }
  return [
    (next) => async (request) => {
      const key = typeof apiKey === "string" ? apiKey : await apiKey();
      request.header.set("Authorization", `Bearer ${key}`);
      return next(request);
    },
  ];
}
