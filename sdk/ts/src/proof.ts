import type { Client } from "@connectrpc/connect";
import { sleep } from "./backoff.js";
import { reasonOf, retryDelayOf } from "./errors.js";
import type { AttestationService, GetProofPackageRequest, ProofPackage } from "./gen/kapsel/v1/attestation_pb.js";
import { type Report, verify } from "./verify/index.js";

// How long one call waits for a seal, and how long it may take in all.
const SEAL_WAIT_SECONDS = 30n;
const CALL_MS = 45_000;
/** The least pause between two calls. */
const PAUSE_MS = 100;

/** A proof package that was verified. */
export interface Proof {
  /** The package, to be kept as a file. */
  readonly json: Uint8Array;
  /** What was checked, and what the leaf says. It is a full proof. */
  readonly report: Report;
}

/** A package that does not prove what was asked for. */
export class ProofError extends Error {
  override readonly name = "ProofError";
  constructor(
    message: string,
    /** What was checked, and what failed. */
    readonly report: Report,
  ) {
    super(message);
  }
}

/**
 * Fetches the proof packages of an event (evt_…), a delivery (dlv_…) or an attempt (att_…), in the order of the log, and verifies each: it is
 * a full proof under one of the trusted keys, and of what was asked for; else it throws a ProofError. If the log has not been sealed yet it waits
 * for that until the signal is aborted. Before anything is recorded it throws NOT_FOUND: call `waitForEvent` first. A dead letter is
 * named by its event and its delivery alone.
 *
 * Trusted keys are verifier keys of the log, at least one, and must come from elsewhere than the server. Nothing proves that there are no
 * more attempts than those that the server shows.
 */
export async function getVerifiedProofs(
  client: Pick<Client<typeof AttestationService>, "getProofPackage">,
  id: string,
  options: { readonly trustedKeys: string[]; readonly signal?: AbortSignal },
): Promise<[Proof, ...Proof[]]> {
  const { trustedKeys, signal } = options;
  if (trustedKeys.length === 0) {
    throw new TypeError("give the log's public key in trustedKeys, from elsewhere than the server");
  }
  const packages = await sealedPackages(client, subjectOf(id), signal);
  const proofs: Proof[] = [];
  for (const { json } of packages) {
    const report = await verify(json, { trustedKeys });
    const place = `proof ${proofs.length + 1} of ${packages.length} of ${id}`;
    if (!report.full) {
      const failed = report.checks.at(-1);
      throw new ProofError(`${place}: ${failed?.name}: ${failed?.detail}`, report);
    }
    const { event_id, delivery_id, attempt_id, erasure_id } = report.leaf ?? {};
    if (![event_id, delivery_id, attempt_id, erasure_id].includes(id)) {
      throw new ProofError(`${place}: it proves leaf ${report.tree?.leafIndex}, which does not name ${id}`, report);
    }
    proofs.push({ json, report });
  }
  const [first, ...more] = proofs;
  if (first === undefined) {
    throw new Error(`the server answered no proof of ${id}`);
  }
  return [first, ...more];
}

type Subject = Exclude<GetProofPackageRequest["subject"], { case: undefined }>;

function subjectOf(id: string): Subject {
  switch (id.split("_", 1)[0]) {
    case "evt":
      return { case: "eventId", value: id };
    case "dlv":
      return { case: "deliveryId", value: id };
    case "att":
      return { case: "attemptId", value: id };
  }
  throw new TypeError(`${JSON.stringify(id)} is not the id of an event (evt_…), a delivery (dlv_…) or an attempt (att_…)`);
}

/** Asks until the log is sealed, or the signal is aborted. */
async function sealedPackages(
  client: Pick<Client<typeof AttestationService>, "getProofPackage">,
  subject: Subject,
  signal?: AbortSignal,
): Promise<ProofPackage[]> {
  for (;;) {
    try {
      const call = { timeoutMs: CALL_MS, ...(signal && { signal }) };
      return (await client.getProofPackage({ subject, wait: { seconds: SEAL_WAIT_SECONDS } }, call)).packages;
    } catch (error) {
      if (reasonOf(error) !== "NOT_SEALED") {
        throw signal?.aborted ? signal.reason : error;
      }
      await sleep(Math.max(retryDelayOf(error) ?? 0, PAUSE_MS), signal);
    }
  }
}
