import { Code, ConnectError } from "@connectrpc/connect";
import { type Backoff, sleep, waitAfter } from "./backoff.js";
import { asUnavailable, reasonOf, retryDelayOf } from "./errors.js";

/** How a stream is kept up. */
export interface StreamOptions {
  /** Ends the stream: the iterator returns, without an error. One that has an end of its own throws the signal's reason: what came is not all. */
  readonly signal?: AbortSignal;
  /** Waits between tries to connect; they begin anew once something has come. Default: 100 ms to 10 s. */
  readonly backoff?: Partial<Backoff>;
  /** Tries in a row that may fail before the error is thrown. Default: no bound. */
  readonly maxAttempts?: number;
  /** Is told of each interruption, before the wait. */
  readonly onReconnect?: (error: unknown, waitMs: number) => void;
}

/** What a stream is made of. */
export interface Resumable<M, Token> {
  /** Opens it, after what token stands for. Undefined: at the beginning. */
  open(token: Token | undefined, signal: AbortSignal): AsyncIterable<M>;
  /** Where to resume after a message. Undefined: where it was before. */
  tokenOf(message: M): Token | undefined;
  /** Whether the stream has an end of its own, as an export has. Then the server ending it is the end, else it is an interruption. */
  readonly finite?: boolean;
}

// The contract of Heartbeat: one comes at least every 15 seconds, and 45 seconds of silence are a broken connection.
const SILENCE_MS = 45_000;

/**
 * Reads a stream of the server that can be resumed, over as many connections as it takes. A message counts as dealt with when the next
 * one is asked for: only then does its token become the place to resume at.
 */
export async function* resume<M, Token>(stream: Resumable<M, Token>, options: StreamOptions = {}, token?: Token): AsyncGenerator<M, void, undefined> {
  const backoff = { initialMs: 100, maxMs: 10_000, ...options.backoff };
  const { signal } = options;
  for (let failures = 0; !signal?.aborted; ) {
    const connection = new AbortController();
    const abort = () => connection.abort(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    let silence: ReturnType<typeof setTimeout> | undefined;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(new ConnectError("the stream was silent for too long", Code.Unavailable)), SILENCE_MS);
    };
    let failure: unknown;
    try {
      listen();
      for await (const message of stream.open(token, connection.signal)) {
        failures = 0;
        clearTimeout(silence); // the consumer may take its time
        yield message;
        token = stream.tokenOf(message) ?? token;
        if (signal?.aborted) {
          break;
        }
        listen();
      }
      if (stream.finite && !signal?.aborted) {
        return;
      }
      failure = new ConnectError("the server has ended the stream", Code.Unavailable);
    } catch (error) {
      failure = asUnavailable(error, signal);
    } finally {
      clearTimeout(silence);
      signal?.removeEventListener("abort", abort);
      connection.abort();
    }
    if (signal?.aborted) {
      break;
    }
    failures++;
    if (isFinal(failure) || failures >= (options.maxAttempts ?? Infinity)) {
      throw failure;
    }
    const wait = waitAfter(failures, backoff, Math.min(retryDelayOf(failure) ?? 0, backoff.maxMs));
    options.onReconnect?.(failure, wait);
    try {
      await sleep(wait, signal);
    } catch {
      break; // aborted
    }
  }
  if (stream.finite) {
    throw signal?.reason;
  }
}

/** Errors that connecting again would not mend: what Kapsel itself refused, and what looks like another server. */
function isFinal(error: unknown): boolean {
  const { code } = ConnectError.from(error);
  if (reasonOf(error) !== undefined) {
    return code !== Code.Unavailable && code !== Code.ResourceExhausted && code !== Code.Internal;
  }
  return code === Code.Unauthenticated || code === Code.PermissionDenied || code === Code.Unimplemented || code === Code.NotFound;
}
