package kapsel_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// A webhook is sent, safely repeated if the connection breaks, and followed until each destination has it. examples/quickstart is the
// whole program.
func ExampleClient_WatchEvents() {
	client, err := kapsel.New("https://kapsel.example.com", kapsel.WithAPIKey("kps_…"))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	receipt, err := client.Ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: "ep_…", Payload: []byte(`{"hello":"world"}`)})
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range client.WatchEvents(ctx, nil, kapsel.Stream{}) {
		if err != nil {
			log.Fatal(err)
		}
		if event.Id == receipt.Receipt.EventId && event.State == kapselv1.EventState_EVENT_STATE_DELIVERED {
			return
		}
	}
}

// Webhooks come down a stream to a program that no URL reaches. What the app on this machine answers are attempts, with leaves in the log.
func ExampleClient_ListenDeliveries() {
	client, err := kapsel.New("https://kapsel.example.com", kapsel.WithAPIKey("kps_…"))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for incoming, err := range client.ListenDeliveries(ctx, new(kapselv1.ListenRequest), kapsel.ListenOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			if _, err := incoming.Forward(ctx, nil, "http://localhost:3000/hooks"); err != nil {
				log.Print(err) // it comes again
			}
		}()
	}
}

// A destination lets only what Kapsel has signed through to its handler.
func ExampleVerifier_Handler() {
	verifier, err := kapsel.NewVerifier("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		log.Fatal(err)
	}
	handler := verifier.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("verified:", kapsel.FromContext(r.Context()).ID)
	}))
	forged := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"amount":1000000}`))
	forged.Header.Set("webhook-id", "evt_1")
	forged.Header.Set("webhook-timestamp", fmt.Sprint(time.Now().Unix()))
	forged.Header.Set("webhook-signature", "v1,Zm9yZ2VkIGJ5IHNvbWVib2R5IHdpdGhvdXQgYSBrZXk=")
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, forged)
	fmt.Println(answer.Code, strings.TrimSpace(answer.Body.String()))
	// Output: 401 no signature of the webhook is by any of the secrets
}

// The example of the Standard Webhooks specification.
func ExampleVerifier_Verify() {
	verifier, err := kapsel.NewVerifier("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		log.Fatal(err)
	}
	verifier.Now = func() time.Time { return time.Unix(1614265330, 0) } // long ago
	header := http.Header{}
	header.Set("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	header.Set("webhook-timestamp", "1614265330")
	header.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	webhook, err := verifier.Verify(header, []byte(`{"test": 2432232314}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s of %s: %s\n", webhook.ID, webhook.Timestamp.UTC().Format(time.DateOnly), webhook.Body)
	// Output: msg_p5jXN8AQM9LWM0D4loKWxJek of 2021-02-25: {"test": 2432232314}
}
