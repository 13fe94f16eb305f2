import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type {
  AttestationService,
  ExportProofPackagesRequestSchema,
  ExportProofPackagesResponse,
  ProofPackage,
  TreeHeadUpdate,
  WatchTreeHeadsResponse,
} from "./gen/kapsel/v1/attestation_pb.js";
import type { Event, EventService, EventState, WatchEventsRequestSchema, WatchEventsResponse } from "./gen/kapsel/v1/event_pb.js";
import { resume, type StreamOptions } from "./stream.js";

// The states of so many events are remembered, so that what the server tells again after an interruption is not told again here.
const TOLD = 10_000;

/**
 * Follows events: each one as it is accepted, and again whenever its state changes. Interruptions are bridged: what happened meanwhile
 * follows, and nothing that was told comes twice.
 */
export async function* watchEvents(
  client: Pick<Client<typeof EventService>, "watchEvents">,
  request: MessageInitShape<typeof WatchEventsRequestSchema> = {},
  options: StreamOptions & {
    /** Is called when the stream is up, each time: what happens from then on is told. */
    readonly onOpen?: () => void;
    /** Is given each token once all before it was dealt with: kept, it lets another process resume within the hour. */
    readonly onToken?: (token: string) => void;
  } = {},
): AsyncGenerator<Event, void, undefined> {
  const told = new Map<string, EventState>();
  const stream = {
    open: (token: string | undefined, signal: AbortSignal) =>
      opened(client.watchEvents({ ...request, resumeToken: token ?? request.resumeToken ?? "" }, { signal, timeoutMs: 0 }), options.onOpen),
    tokenOf: (message: WatchEventsResponse) => {
      options.onToken?.(message.resumeToken);
      return message.resumeToken;
    },
  };
  for await (const { update } of resume(stream, options)) {
    if (update.case !== "event" || told.get(update.value.id) === update.value.state) {
      continue;
    }
    told.delete(update.value.id); // to the end of the order
    told.set(update.value.id, update.value.state);
    if (told.size > TOLD) {
      told.delete(told.keys().next().value as string);
    }
    yield update.value;
  }
}

/** Calls back with the first message, which comes at once. */
async function* opened<M>(messages: AsyncIterable<M>, onOpen?: () => void): AsyncIterable<M> {
  let first = true;
  for await (const message of messages) {
    if (first) {
      first = false;
      onOpen?.();
    }
    yield message;
  }
}

/**
 * Follows the heads of a log, each with the proof that it continues the one before. A head counts as checked when the next one is asked
 * for: after an interruption the proofs go on from the last one that was. Throw in the loop when a check fails.
 */
export async function* watchTreeHeads(
  client: Pick<Client<typeof AttestationService>, "watchTreeHeads">,
  options: StreamOptions & {
    /** Log to follow. Default: the one that new attempts go to. */
    readonly logId?: string;
    /** Size of the last head that was checked before. Undefined: none. */
    readonly knownSize?: bigint;
  } = {},
): AsyncGenerator<TreeHeadUpdate, void, undefined> {
  let known = options.knownSize;
  const stream = {
    open: (_: undefined, signal: AbortSignal) =>
      client.watchTreeHeads(
        { ...(options.logId !== undefined && { logId: options.logId }), ...(known !== undefined && { knownSize: known }) },
        { signal, timeoutMs: 0 },
      ),
    tokenOf: (_: WatchTreeHeadsResponse) => undefined,
  };
  for await (const { update } of resume(stream, options)) {
    const size = update.case === "head" ? update.value.treeHead?.treeSize : undefined;
    if (update.case !== "head" || size === undefined || size === known) {
      continue;
    }
    const from = update.value.consistencyProof?.fromSize;
    if (known !== undefined && (size < known || from !== known)) {
      throw new ConnectError(`the log answered a head of ${size} leaves with a proof from ${from}, for one who knows ${known}: keep both heads as evidence`, Code.DataLoss);
    }
    yield update.value;
    known = size;
  }
}

/**
 * Exports the proof packages of a span of time, in the order of the log, each once. Interruptions are bridged. If the loop ends by itself, these were
 * all: when the signal ends it, its reason is thrown.
 */
export async function* exportProofPackages(
  client: Pick<Client<typeof AttestationService>, "exportProofPackages">,
  request: MessageInitShape<typeof ExportProofPackagesRequestSchema>,
  options: StreamOptions = {},
): AsyncGenerator<ProofPackage, void, undefined> {
  const stream = {
    finite: true,
    open: (token: string | undefined, signal: AbortSignal) =>
      client.exportProofPackages({ ...request, resumeToken: token ?? request.resumeToken ?? "" }, { signal, timeoutMs: 0 }),
    tokenOf: (message: ExportProofPackagesResponse) => message.resumeToken,
  };
  for await (const { packages } of resume(stream, options)) {
    yield* packages;
  }
}
