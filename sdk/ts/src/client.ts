import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { AttestationService } from "./gen/kapsel/v1/attestation_pb.js";
import { DeliveryService } from "./gen/kapsel/v1/delivery_pb.js";
import { DestinationService } from "./gen/kapsel/v1/destination_pb.js";
import { EndpointService } from "./gen/kapsel/v1/endpoint_pb.js";
import { EventService } from "./gen/kapsel/v1/event_pb.js";
import { IngestService } from "./gen/kapsel/v1/ingest_pb.js";
import { ListenService } from "./gen/kapsel/v1/listen_pb.js";
import { TenantService } from "./gen/kapsel/v1/tenant_pb.js";
import { createKapselTransport, type KapselOptions } from "./transport.js";

/** Clients of all services, over one transport. */
export interface Kapsel {
  readonly transport: Transport;
  readonly ingest: Client<typeof IngestService>;
  readonly endpoints: Client<typeof EndpointService>;
  readonly destinations: Client<typeof DestinationService>;
  readonly events: Client<typeof EventService>;
  readonly deliveries: Client<typeof DeliveryService>;
  readonly attestation: Client<typeof AttestationService>;
  readonly tenants: Client<typeof TenantService>;
  readonly listen: Client<typeof ListenService>;
}

/**
 * Makes clients of all services. Where the size of a bundle counts, `createKapselTransport` with Connect's `createClient` brings in only the
 * services that are named.
 */
export function createKapsel(options: KapselOptions | { readonly transport: Transport }): Kapsel {
  const transport = "transport" in options ? options.transport : createKapselTransport(options);
  return {
    transport,
    ingest: createClient(IngestService, transport),
    endpoints: createClient(EndpointService, transport),
    destinations: createClient(DestinationService, transport),
    events: createClient(EventService, transport),
    deliveries: createClient(DeliveryService, transport),
    attestation: createClient(AttestationService, transport),
    tenants: createClient(TenantService, transport),
    listen: createClient(ListenService, transport),
  };
}
