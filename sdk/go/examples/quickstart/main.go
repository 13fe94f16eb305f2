// Command quickstart goes from nothing to a proof: an endpoint, a destination, a webhook, its delivery, and the package that proves it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := kapsel.New(os.Getenv("KAPSEL_URL"), kapsel.WithAPIKey(os.Getenv("KAPSEL_API_KEY")))
	if err != nil {
		log.Fatal(err)
	}
	route, err := client.CreateRoute(ctx, &kapselv1.Endpoint{}, &kapselv1.Destination{Url: os.Getenv("DESTINATION_URL")})
	if err != nil {
		log.Fatal(err)
	}
	webhook := &kapselv1.IngestRequest{EndpointId: route.Endpoint.Id, Payload: []byte(`{"hello":"world"}`)}
	event, err := client.IngestAndWait(ctx, webhook)
	if err != nil {
		log.Fatal(err)
	}
	// The key must come from elsewhere than the server that is checked with it.
	proofs, err := client.GetVerifiedProofs(ctx, event.Id, os.Getenv("KAPSEL_LOG_PUBLIC_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(event.Id, event.State, proofs[0].Report.Level)
}
