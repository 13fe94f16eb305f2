import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/** Domain of the reasons in errors that Kapsel itself answered. */
const DOMAIN = "kapsel.dev";

/**
 * The stable cause of an error that Kapsel answered, such as "ENDPOINT_NOT_FOUND": the names of `ErrorReason` without their prefix.
 * Undefined for errors of another origin: the network, a proxy, this SDK.
 */
export function reasonOf(error: unknown): string | undefined {
  return ConnectError.from(error)
    .findDetails(ErrorInfoSchema)
    .find((info) => info.domain === DOMAIN)?.reason;
}

/** The fields of a request that were wrong, with what is wrong with them. */
export function violationsOf(error: unknown): { field: string; description: string }[] {
  return ConnectError.from(error)
    .findDetails(BadRequestSchema)
    .flatMap((detail) => detail.fieldViolations)
    .map(({ field, description }) => ({ field, description }));
}

/** How long the server asks to wait before a retry, in milliseconds. Undefined: it does not say. */
export function retryDelayOf(error: unknown): number | undefined {
  const delay = ConnectError.from(error).findDetails(RetryInfoSchema)[0]?.retryDelay;
  return delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6;
}

/** Whether the call may not have reached a node that could answer it: what failed is the way there, or the node for the moment. */
export function isTransient(error: unknown): boolean {
  const e = ConnectError.from(error);
  if (reasonOf(e) !== undefined) {
    return e.code === Code.Unavailable;
  }
  // Without a reason the answer is not Kapsel's. fetch has one error for everything (TypeError), which becomes Unknown.
  return e.code === Code.Unavailable || e.code === Code.Aborted || (e.code === Code.Unknown && e.cause !== undefined);
}

/**
 * The error of a connection that broke while nobody canceled the call, with the code that says so: Connect takes its streams of HTTP/2 for
 * canceled by the server, and what else Node.js says of connections for bugs.
 */
export function asUnavailable(error: unknown, signal?: AbortSignal): unknown {
  if (signal?.aborted || !(error instanceof ConnectError) || reasonOf(error) !== undefined) {
    return error;
  }
  if (error.code !== Code.Canceled && !(error.code === Code.Internal && isBroken(error.cause))) {
    return error;
  }
  return new ConnectError(error.rawMessage, Code.Unavailable, error.metadata, undefined, error);
}

/** Whether an error of Node.js, or one that is behind it, is that of a connection. */
function isBroken(error: unknown): boolean {
  if (!(error instanceof Error)) {
    return false;
  }
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  return (typeof code === "string" && /^(E[A-Z]+$|ERR_HTTP2_(STREAM|SESSION|GOAWAY)_)/.test(code)) || isBroken(cause);
}
