package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// The operator has a log sealed that would not be for an hour, by the command line alone, and is told why when that cannot be.
func TestOperatorSealsTheLogOnTheCommandLine(t *testing.T) {
	url, databaseURL := serviceThat(t, func(c *node.Config) { c.SealLeaves, c.SealAge = 1_000_000, time.Hour })
	operator := mustSay(t, "keys", "create", "--operator", "--database-url", databaseURL)
	key := mustSay(t, "keys", "create", "--database-url", databaseURL)
	seal := []string{"seal", "--url", url, "--api-key", operator}
	tenant := newClient(url, key)
	log, err := tenant.attestation.GetLog(t.Context(), &kapselv1.GetLogRequest{})
	if err != nil {
		t.Fatal(err)
	}
	head := func() *verify.Head {
		head, err := verify.OpenHead(mustSay(t, seal...)+"\n", []string{log.Log.Keys[0].VerifierKey})
		if err != nil {
			t.Fatalf("it printed no checkpoint of the log: %v", err)
		}
		return head
	}
	before := head()

	endpoint, err := tenant.endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON}})
	if err != nil {
		t.Fatal(err)
	}
	// Broken JSON is recorded as a dead letter.
	response, err := http.Post(url+"/ingest/"+endpoint.Endpoint.Id, "application/json", strings.NewReader("{"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	var listed *kapselv1.ListDeadLettersResponse
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && len(listed.GetDeadLetters()) == 0; time.Sleep(20 * time.Millisecond) {
		if listed, err = tenant.deliveries.ListDeadLetters(t.Context(), &kapselv1.ListDeadLettersRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if after := head(); after.Size != before.Size+1 {
		t.Errorf("sealed %d leaves after %d: want one more", after.Size, before.Size)
	}
	if _, failure := say(t, "seal", "--url", url, "--api-key", key); !strings.Contains(failure, "scope") {
		t.Errorf("a tenant's key: %q", failure)
	}

	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "update logs set next_index = next_index + 1"); err != nil {
		t.Fatal(err)
	}
	if _, failure := say(t, seal...); !strings.Contains(failure, "refused to sign") {
		t.Errorf("a log that lacks a leaf: %q", failure)
	}
}
