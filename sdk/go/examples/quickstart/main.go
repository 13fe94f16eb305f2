// Command quickstart goes from nothing to a proof: an endpoint, a destination, a webhook, its delivery, and the package that proves it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := must(kapsel.New(os.Getenv("KAPSEL_URL"), kapsel.WithAPIKey(os.Getenv("KAPSEL_API_KEY")), kapsel.WithTimeout(0)))
	endpoint := must(client.Endpoints.CreateEndpoint(ctx, &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{DisplayName: "quickstart"}})).Endpoint
	must(client.Destinations.CreateDestination(ctx, &kapselv1.CreateDestinationRequest{
		Destination: &kapselv1.Destination{EndpointId: endpoint.Id, Url: os.Getenv("DESTINATION_URL")},
	}))
	send := func() {
		must(client.Ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: endpoint.Id, Payload: []byte(`{"hello":"world"}`)}))
	}
	filter := &kapselv1.EventFilter{EndpointIds: []string{endpoint.Id}}
	for event, err := range client.WatchEvents(ctx, filter, kapsel.Stream{OnOpen: send}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Id, event.State)
		if event.State == kapselv1.EventState_EVENT_STATE_DELIVERED {
			proof := must(client.Attestation.GetProofPackage(ctx, &kapselv1.GetProofPackageRequest{
				Subject: &kapselv1.GetProofPackageRequest_EventId{EventId: event.Id}, Wait: durationpb.New(30 * time.Second),
			})).Packages[0]
			// The key must come from elsewhere than the server that is checked with it.
			report := must(verify.Verify(proof.Json, verify.Options{TrustedKeys: []string{os.Getenv("KAPSEL_LOG_KEY")}}))
			fmt.Println(report.Level)
			return
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
