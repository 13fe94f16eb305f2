import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { sha256 } from "@noble/hashes/sha2.js";
import { Failure } from "./gen/kapsel/leaf/v1/leaf_pb.js";
import type { ListenDelivery, ListenRequestSchema, ListenResponse, ListenService, ListenSession, ReportRequestSchema } from "./gen/kapsel/v1/listen_pb.js";
import { resume, type StreamOptions } from "./stream.js";

// Leaves time to report within the 30 s that the server waits.
const FORWARD_MS = 25_000;
// The longest duration that the contract lets a report have.
const MAX_REPORT_MS = 600_000;
// What is hashed of an answer, what is kept of it for people, and how many characters a failure may have.
const MAX_ANSWER_BYTES = 64 << 10;
const MAX_EXCERPT_BYTES = 1 << 10;
const MAX_MESSAGE = 1024;

type Result = NonNullable<MessageInitShape<typeof ReportRequestSchema>["result"]>;

/**
 * Opens a session, or resumes the one that the request names, and follows its deliveries: each is one more attempt of its event, whose
 * result is what is reported of it. Interruptions are bridged, in the same session. What was sent and not reported then is an attempt of
 * unknown outcome and comes again, so deliveries come at least once. When the signal or the loop ends it, the session can be resumed for
 * 10 minutes.
 *
 * The server sends up to the request's maxInFlight, 10 by default, without a report: do not await one report before the next delivery, or set
 * it to 1.
 */
export async function* listenDeliveries(
  client: Pick<Client<typeof ListenService>, "listen" | "report">,
  request: MessageInitShape<typeof ListenRequestSchema> = {},
  options: StreamOptions & {
    /** Is told of the session each time the stream is up. Only a new one comes with the secret that its webhooks are signed with. */
    readonly onSession?: (session: ListenSession) => void;
  } = {},
): AsyncGenerator<Incoming, void, undefined> {
  let sessionId = request.sessionId ?? "";
  const stream = {
    open: (_: undefined, signal: AbortSignal) => client.listen({ ...request, sessionId }, { signal, timeoutMs: 0 }),
    tokenOf: (_: ListenResponse) => undefined,
  };
  for await (const { update } of resume(stream, options)) {
    if (update.case === "session") {
      sessionId = update.value.id;
      options.onSession?.(update.value);
    } else if (update.case === "delivery") {
      yield new Incoming(update.value, client, sessionId);
    }
  }
}

/** A delivery that came down a session, to be reported by `forward`, `answer` or `fail` before its `reportDeadline`. */
export class Incoming {
  readonly #client: Pick<Client<typeof ListenService>, "report">;
  readonly #sessionId: string;
  readonly #came = now();

  constructor(
    readonly delivery: ListenDelivery,
    client: Pick<Client<typeof ListenService>, "report">,
    sessionId: string,
  ) {
    this.#client = client;
    this.#sessionId = sessionId;
  }

  /** What a destination gets with the webhook: its own headers, and the signature's. */
  headers(): Headers {
    const headers = new Headers();
    for (const { name, value, rawValue } of this.delivery.headers) {
      // Headers take a character for each byte.
      const bytes = rawValue.length > 0 ? rawValue : new TextEncoder().encode(value);
      headers.append(name, Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    }
    return headers;
  }

  /**
   * Reports what the app answered; a status of 2xx is success. Of the body the first 64 KiB are hashed, and 1 KiB is kept. It is done when the
   * attempt is recorded. REPORT_TOO_LATE and ATTEMPT_NOT_FOUND say that it was recorded without this result: it comes again.
   */
  async answer(statusCode: number, body: Uint8Array = new Uint8Array()): Promise<void> {
    await this.#report(answered(statusCode, body), this.#came);
  }

  /**
   * Reports that the app did not answer, and why: DNS, CONNECT, TLS, TIMEOUT, PROTOCOL or CONFIGURATION, with at most 1024 characters for people.
   * Its errors are those of `answer`.
   */
  async fail(failure: Failure, message = ""): Promise<void> {
    await this.#report(failed(failure, message), this.#came);
  }

  /**
   * Posts the webhook to an app as a destination would get it, and reports what came of it: the status whatever it is, or why there was none.
   * It waits 25 s and follows no redirect, as the service does. It returns what was reported; its errors are those of `answer`.
   */
  async forward(url: string, fetch: typeof globalThis.fetch = globalThis.fetch): Promise<Result> {
    const began = now();
    const result = await this.#post(url, fetch).catch((error: unknown) => failed(failureOf(error), describeError(error)));
    await this.#report(result, began);
    return result;
  }

  async #post(url: string, fetch: typeof globalThis.fetch): Promise<Result> {
    const signal = AbortSignal.timeout(FORWARD_MS);
    const body = new Uint8Array(this.delivery.payload);
    const response = await fetch(url, { method: "POST", headers: this.headers(), body, redirect: "manual", signal });
    if (response.type === "opaqueredirect") {
      return failed(Failure.PROTOCOL, "the app answered a redirect, whose status a browser does not tell");
    }
    // The status is the answer, whatever its body comes to.
    return answered(response.status, await beginningOf(response).catch(() => new Uint8Array()));
  }

  async #report(result: Result, began: Moment): Promise<void> {
    const duration = Math.min(performance.now() - began.clock, MAX_REPORT_MS);
    await this.#client.report({
      sessionId: this.#sessionId,
      attemptId: this.delivery.attemptId,
      result,
      startTime: timestampFromMs(began.time),
      duration: durationFromMs(Math.round(duration)),
    });
  }
}

interface Moment {
  readonly time: number;
  readonly clock: number;
}

const now = (): Moment => ({ time: Date.now(), clock: performance.now() });

function answered(statusCode: number, body: Uint8Array): Result {
  const read = body.subarray(0, MAX_ANSWER_BYTES);
  return {
    case: "answer",
    value: {
      statusCode,
      bodySha256: new Uint8Array(sha256(read)),
      bodyBytes: BigInt(read.length),
      bodyExcerpt: read.slice(0, MAX_EXCERPT_BYTES),
      truncated: body.length > read.length,
    },
  };
}

function failed(failure: Failure, message: string): Result {
  const text = Array.from(message).slice(0, MAX_MESSAGE).join("");
  // Half of a surrogate pair is no text.
  return { case: "failure", value: { failure, message: new TextDecoder().decode(new TextEncoder().encode(text)) } };
}

/** Reads one byte more than is hashed, and leaves the rest. */
async function beginningOf(response: Response): Promise<Uint8Array> {
  const read = new Uint8Array(MAX_ANSWER_BYTES + 1);
  const reader = response.body?.getReader();
  let length = 0;
  while (reader !== undefined && length < read.length) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    const part = value.subarray(0, read.length - length);
    read.set(part, length);
    length += part.length;
  }
  await reader?.cancel();
  return read.subarray(0, length);
}

/** The class of fetch's error. Node.js names the cause; a browser does not. */
function failureOf(error: unknown): Failure {
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return Failure.TIMEOUT;
  }
  const { code } = ((error as Error).cause ?? {}) as { code?: unknown };
  if (typeof code !== "string") {
    return Failure.PROTOCOL;
  }
  if (/^(ENOTFOUND|EAI_)/.test(code)) {
    return Failure.DNS;
  }
  if (/^(ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|UND_ERR_CONNECT_TIMEOUT)$/.test(code)) {
    return Failure.CONNECT;
  }
  if (/TIMEOUT/.test(code)) {
    return Failure.TIMEOUT;
  }
  return /CERT|TLS|SSL|SIGNATURE/.test(code) ? Failure.TLS : Failure.PROTOCOL;
}

function describeError(error: unknown): string {
  const { cause } = error as Error;
  return cause === undefined ? String(error) : `${String(error)}: ${String(cause)}`;
}
