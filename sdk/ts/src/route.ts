import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Kapsel } from "./client.js";
import type { CreateDestinationResponse, DestinationSchema } from "./gen/kapsel/v1/destination_pb.js";
import type { Endpoint, EndpointSchema } from "./gen/kapsel/v1/endpoint_pb.js";

/** An endpoint with the destinations that its events go to. */
export interface Route {
  readonly endpoint: Endpoint;
  /** The secret that was generated for the endpoint's source to sign with. It is never shown again. Empty: none is used. */
  readonly secret: string;
  /** In the order of createRoute's, each with the secret that was generated for its receiver, which is never shown again either. */
  readonly destinations: readonly CreateDestinationResponse[];
}

/**
 * Makes an endpoint, and destinations for its events; their endpoint ids are filled in. If one of them cannot be made, what was made before
 * is removed again; if that fails too, an AggregateError names the endpoint that is left. To choose the secrets call
 * `endpoints.createEndpoint` and `destinations.createDestination`.
 */
export async function createRoute(
  client: Pick<Kapsel, "endpoints" | "destinations">,
  endpoint: MessageInitShape<typeof EndpointSchema>,
  ...destinations: MessageInitShape<typeof DestinationSchema>[]
): Promise<Route> {
  const made = await client.endpoints.createEndpoint({ endpoint });
  if (made.endpoint === undefined) {
    throw new ConnectError("the server answered no endpoint", Code.Internal);
  }
  const { id } = made.endpoint;
  const route = { endpoint: made.endpoint, secret: made.secret, destinations: [] as CreateDestinationResponse[] };
  try {
    for (const destination of destinations) {
      route.destinations.push(await client.destinations.createDestination({ destination: { ...destination, endpointId: id } }));
    }
  } catch (error) {
    await client.endpoints.deleteEndpoint({ endpointId: id, force: true }).catch((left: unknown) => {
      throw new AggregateError([error, left], `a destination could not be made, and endpoint ${id} is left: ${String(error)}; ${String(left)}`);
    });
    throw error;
  }
  return route;
}
