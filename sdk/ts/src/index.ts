// Client of Kapsel for browsers, Node.js and workers.

export { createKapsel, type Kapsel } from "./client.js";
export { isTransient, reasonOf, retryDelayOf, violationsOf } from "./errors.js";
export { DeadLetterReason, Failure, Outcome } from "./gen/kapsel/leaf/v1/leaf_pb.js";
export * from "./gen/kapsel/v1/attestation_pb.js";
export * from "./gen/kapsel/v1/common_pb.js";
export * from "./gen/kapsel/v1/delivery_pb.js";
export * from "./gen/kapsel/v1/destination_pb.js";
export * from "./gen/kapsel/v1/endpoint_pb.js";
export * from "./gen/kapsel/v1/error_pb.js";
export * from "./gen/kapsel/v1/event_pb.js";
export * from "./gen/kapsel/v1/ingest_pb.js";
export * from "./gen/kapsel/v1/listen_pb.js";
export * from "./gen/kapsel/v1/tenant_pb.js";
export { Incoming, listenDeliveries } from "./listen.js";
export { getVerifiedProofs, type Proof, ProofError } from "./proof.js";
export { type RetryOptions, withRetries } from "./retry.js";
export { createRoute, type Route } from "./route.js";
export { type Resumable, resume, type StreamOptions } from "./stream.js";
export { createKapselTransport, type KapselOptions } from "./transport.js";
export { ingestAndWait, waitForEvent } from "./wait.js";
export { exportProofPackages, watchEvents, watchTreeHeads } from "./watch.js";
