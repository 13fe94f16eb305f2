// Client of Kapsel for Node.js and the browser.

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
