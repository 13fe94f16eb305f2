package kapsel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// undoTime bounds the removal of what CreateRoute made in vain.
const undoTime = 15 * time.Second

// Route is an endpoint with the destinations that its events go to.
type Route struct {
	Endpoint *kapselv1.Endpoint
	// Secret is the one that was generated for the endpoint's source to sign with. It is never shown again. Empty: none is used.
	Secret string
	// Destinations are in the order of CreateRoute's, each with the secret that was generated for its receiver to verify with, which is never
	// shown again either.
	Destinations []*kapselv1.CreateDestinationResponse
}

// CreateRoute makes an endpoint, and destinations for its events; their endpoint ids are filled in. If one of them cannot be made, what
// was made before is removed again, and if that fails too, the error names the endpoint that is left. To choose the secrets call
// Endpoints.CreateEndpoint and Destinations.CreateDestination.
func (c *Client) CreateRoute(ctx context.Context, endpoint *kapselv1.Endpoint, destinations ...*kapselv1.Destination) (*Route, error) {
	made, err := c.Endpoints.CreateEndpoint(ctx, &kapselv1.CreateEndpointRequest{Endpoint: endpoint})
	if err != nil {
		return nil, fmt.Errorf("create endpoint: %w", err)
	}
	route := &Route{Endpoint: made.Endpoint, Secret: made.Secret}
	for i, destination := range destinations {
		destination = proto.CloneOf(destination)
		destination.EndpointId = route.Endpoint.GetId()
		made, err := c.Destinations.CreateDestination(ctx, &kapselv1.CreateDestinationRequest{Destination: destination})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("create destination %d of %d: %w", i+1, len(destinations), err), c.undo(ctx, route))
		}
		route.Destinations = append(route.Destinations, made)
	}
	return route, nil
}

func (c *Client) undo(ctx context.Context, route *Route) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	id := route.Endpoint.GetId()
	if _, err := c.Endpoints.DeleteEndpoint(ctx, &kapselv1.DeleteEndpointRequest{EndpointId: id, Force: true}); err != nil {
		return fmt.Errorf("endpoint %s is left: %w", id, err)
	}
	return nil
}
