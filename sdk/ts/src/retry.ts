import { create, type DescMessage, type DescMethodUnary, type MessageInitShape } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { type Backoff, sleep, waitAfter } from "./backoff.js";
import { asUnavailable, isTransient, retryDelayOf } from "./errors.js";
import { type Header, HeaderSchema } from "./gen/kapsel/v1/common_pb.js";
import { type IngestRequest, IngestService } from "./gen/kapsel/v1/ingest_pb.js";

/** How calls are tried again. */
export interface RetryOptions extends Backoff {
  /** Number of tries in all. 1: none is repeated. */
  readonly maxAttempts: number;
  /** Time for all tries of a call together, in milliseconds, where the call does not set its own. */
  readonly timeoutMs: number;
}

export const defaultRetry: RetryOptions = { maxAttempts: 5, initialMs: 100, maxMs: 5_000, timeoutMs: 30_000 };

/**
 * Makes a transport that repeats unary calls which may be repeated: those without side effects, webhooks with an idempotency key, and reports of
 * a listening session.
 * What the server refused before doing anything (RESOURCE_EXHAUSTED with RetryInfo) is repeated in any case.
 */
export function withRetries(transport: Transport, options: Partial<RetryOptions> = {}): Transport {
  const retry = { ...defaultRetry, ...options };
  return {
    stream: transport.stream.bind(transport),
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const total = timeoutMs ?? retry.timeoutMs;
      const deadline = total > 0 ? Date.now() + total : Infinity;
      const { message, repeatable } = prepare(method, input);
      for (let tries = 1; ; tries++) {
        const left = deadline === Infinity ? undefined : Math.max(deadline - Date.now(), 1);
        try {
          return await transport.unary(method, signal, left, header, message, contextValues);
        } catch (reason) {
          const error = asUnavailable(reason, signal);
          const asked = retryDelayOf(error);
          const refused = ConnectError.from(error).code === Code.ResourceExhausted && asked !== undefined;
          const wait = waitAfter(tries, retry, asked);
          if (tries >= retry.maxAttempts || signal?.aborted || !(refused || (repeatable && isTransient(error))) || Date.now() + wait >= deadline) {
            throw error;
          }
          await sleep(wait, signal).catch((reason: unknown) => {
            throw ConnectError.from(reason, Code.Canceled);
          });
        }
      }
    },
  };
}

/** Says whether a call may be repeated, and gives webhooks without a key of their own one, the same for all tries. */
function prepare<I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  input: MessageInitShape<I>,
): { message: MessageInitShape<I>; repeatable: boolean } {
  const level = method.idempotency;
  if (level === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS || level === MethodOptions_IdempotencyLevel.IDEMPOTENT) {
    return { message: input, repeatable: true };
  }
  const name = `${method.parent.typeName}/${method.name}`;
  if (name === "kapsel.v1.ListenService/Report") {
    return { message: input, repeatable: true }; // the same result twice is no error
  }
  const message = create(method.input, input) as unknown;
  const webhooks =
    name === `${IngestService.typeName}/Ingest`
      ? [message as IngestRequest]
      : name === `${IngestService.typeName}/IngestBatch`
        ? (message as { webhooks: IngestRequest[] }).webhooks
        : undefined;
  if (webhooks === undefined) {
    return { message: input, repeatable: false };
  }
  const keyed = webhooks.map(withKey);
  return {
    message: (name.endsWith("/Ingest") ? keyed[0] : { ...(message as object), webhooks: keyed }) as unknown as MessageInitShape<I>,
    repeatable: keyed.every(hasKey),
  };
}

/** A webhook with other headers than Content-Type may have a key of its provider's in them, which must stay what counts. */
function withKey(webhook: IngestRequest): IngestRequest {
  if (!webhook.headers.every((h) => h.name.toLowerCase() === "content-type")) {
    return webhook;
  }
  const key: Header = create(HeaderSchema, { name: "Idempotency-Key", value: crypto.randomUUID() });
  return { ...webhook, headers: [...webhook.headers, key] };
}

function hasKey(webhook: IngestRequest): boolean {
  return webhook.headers.some((h) => ["idempotency-key", "x-idempotency-key", "webhook-id"].includes(h.name.toLowerCase()));
}
