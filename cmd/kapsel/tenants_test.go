package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// service is a node with a database of its own, which seals each leaf at once.
func service(t *testing.T) (url, databaseURL string) {
	t.Helper()
	return serviceThat(t, func(c *node.Config) { c.SealLeaves = 1 })
}

func serviceThat(t *testing.T, change func(*node.Config)) (url, databaseURL string) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	databaseURL = pgtest.New(t, func(ctx context.Context, url string) error {
		_, err := store.Migrate(ctx, url)
		return err
	})
	config := node.Config{
		DatabaseURL: databaseURL, Listen: "127.0.0.1:0", StateDir: t.TempDir(), LogOrigin: "log.example.com/log/1",
		AllowedDestinations: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Logger: slog.New(slog.DiscardHandler),
	}
	change(&config)
	n, err := node.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Stop(context.Background()) })
	return n.URL(), databaseURL
}

// say runs the command line and returns what it printed, and its error's text.
func say(t *testing.T, args ...string) (output, failure string) {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(new(bytes.Buffer))
	if err := root.ExecuteContext(t.Context()); err != nil {
		failure = oneLine(err)
	}
	return strings.TrimSpace(out.String()), failure
}

func mustSay(t *testing.T, args ...string) string {
	t.Helper()
	output, failure := say(t, args...)
	if failure != "" {
		t.Fatalf("kapsel %s: %s", strings.Join(args, " "), failure)
	}
	return output
}

func TestOperatorsManageTenantsOnTheCommandLine(t *testing.T) {
	url, databaseURL := service(t)
	operator := mustSay(t, "keys", "create", "--operator", "--database-url", databaseURL)
	asOperator := []string{"--url", url, "--api-key", operator}
	tenantID := mustSay(t, append([]string{"tenants", "create", "--name", "Shop"}, asOperator...)...)
	key := mustSay(t, append([]string{"keys", "create", "--tenant", tenantID, "--scope", "read,admin", "--expires", "24h", "--name", "ci"}, asOperator...)...)
	asTenant := []string{"--url", url, "--api-key", key}

	listed := mustSay(t, append([]string{"keys", "list"}, asTenant...)...)
	if !strings.Contains(listed, key[:12]) || !strings.Contains(listed, "read,admin") || !strings.Contains(listed, "until ") || !strings.Contains(listed, "ci") || strings.Contains(listed, key) {
		t.Errorf("keys list says\n%s", listed)
	}
	if own := mustSay(t, append([]string{"keys", "list"}, asOperator...)...); !strings.Contains(own, operator[:12]) || strings.Contains(own, key[:12]) {
		t.Errorf("the operator's own keys are\n%s", own)
	}
	for _, step := range []struct{ verb, state string }{{"suspend", "suspended"}, {"activate", "active"}} {
		if said := mustSay(t, append([]string{"tenants", step.verb, tenantID}, asOperator...)...); said != tenantID+" is "+step.state {
			t.Errorf("tenants %s says %q", step.verb, said)
		}
		if said := mustSay(t, append([]string{"tenants", "list"}, asOperator...)...); !strings.Contains(said, step.state) || !strings.Contains(said, "Shop") {
			t.Errorf("tenants list says\n%s", said)
		}
	}
	keyID := regexp.MustCompile(`key_\w+`).FindString(listed)
	if said := mustSay(t, append([]string{"keys", "revoke", keyID}, asOperator...)...); !strings.Contains(said, "revoked") {
		t.Errorf("keys revoke says %q", said)
	}
	if _, failure := say(t, append([]string{"keys", "list"}, asTenant...)...); !strings.Contains(failure, "revoked") {
		t.Errorf("with a revoked key: %q", failure)
	}
	if _, failure := say(t, append([]string{"tenants", "delete", tenantID}, asOperator...)...); !strings.Contains(failure, "--yes") {
		t.Errorf("tenants delete without --yes: %q", failure)
	}
	if said := mustSay(t, append([]string{"tenants", "delete", tenantID, "--yes"}, asOperator...)...); !strings.Contains(said, "deleting") {
		t.Errorf("tenants delete says %q", said)
	}
	for want, other := range map[string]string{"being deleted": tenantID, "no such tenant": id.Tenant.Text(id.New())} {
		if said, failure := say(t, "keys", "create", "--tenant", other, "--database-url", databaseURL); said != "" || !strings.Contains(failure, want) {
			t.Errorf("keys create on the database says %q, %q: want %q", said, failure, want)
		}
	}
}

// asAnother has each command that takes an API key, with arguments that name what is another tenant's.
func asAnother(t *testing.T, endpointID, eventID, attemptID, tenantID, keyID string) map[string][]string {
	file := filepath.Join(t.TempDir(), "proof.json")
	return map[string][]string{
		"kapsel listen":           {"listen", "--forward", "http://127.0.0.1:1", "--endpoint", endpointID},
		"kapsel deadletters":      {"deadletters", "--endpoint", endpointID},
		"kapsel replay":           {"replay", "--endpoint", endpointID, "--dry-run"},
		"kapsel proof":            {"proof", attemptID, "-o", file},
		"kapsel export":           {"export", "--endpoint", endpointID, "-o", "-"},
		"kapsel keys create":      {"keys", "create", "--tenant", tenantID},
		"kapsel keys list":        {"keys", "list", "--tenant", tenantID},
		"kapsel keys revoke":      {"keys", "revoke", keyID},
		"kapsel tenants create":   {"tenants", "create"},
		"kapsel tenants list":     {"tenants", "list"},
		"kapsel tenants suspend":  {"tenants", "suspend", tenantID},
		"kapsel tenants activate": {"tenants", "activate", tenantID},
		"kapsel tenants delete":   {"tenants", "delete", tenantID, "--yes"},
	}
}

// notAnothers are commands that take an API key and name nothing that a tenant has; tail, which would never end, is one rpc, of
// which the server's tests know.
var notAnothers = []string{"kapsel send", "kapsel bench", "kapsel seal", "kapsel tail", "kapsel audit", "kapsel monitor"}

// Each command, with the key of one tenant and ids of another, must say what it says of ids of nothing.
func TestNoCommandReachesAnotherTenant(t *testing.T) {
	url, databaseURL := service(t)
	attacker := mustSay(t, "keys", "create", "--database-url", databaseURL)
	theirs := mustSay(t, "keys", "create", "--database-url", databaseURL)
	c := newClient(url, theirs)
	const canary = "canary-of-the-victim"
	endpoint, err := c.endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{DisplayName: canary, PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON}})
	if err != nil {
		t.Fatal(err)
	}
	destination, err := c.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{Destination: &kapselv1.Destination{EndpointId: endpoint.Endpoint.Id, Url: "http://127.0.0.1:1/" + canary}})
	if err != nil {
		t.Fatal(err)
	}
	sent, err := c.destinations.SendTest(t.Context(), &kapselv1.SendTestRequest{DestinationId: destination.Destination.Id})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := c.tenants.ListApiKeys(t.Context(), &kapselv1.ListApiKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	attempt := sent.Attempt
	known := asAnother(t, endpoint.Endpoint.Id, attempt.EventId, attempt.Id, keys.ApiKeys[0].TenantId, keys.ApiKeys[0].Id)
	nothings := asAnother(t, id.Endpoint.Text(id.New()), id.Event.Text(id.New()), id.Attempt.Text(id.New()), id.Tenant.Text(id.New()), id.APIKey.Text(id.New()))

	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, child := range cmd.Commands() {
			walk(child)
		}
		name := cmd.CommandPath()
		if cmd.Flags().Lookup("api-key") == nil || slices.Contains(notAnothers, name) || cmd.Annotations[rpcAnnotation] != "" { // one rpc: as for tail
			return
		}
		if known[name] == nil {
			t.Errorf("%s takes an API key: add it to asAnother, with arguments that name what is another tenant's", name)
			return
		}
		flags := []string{"--url", url, "--api-key", attacker}
		output, failure := say(t, append(known[name], flags...)...)
		otherOutput, otherFailure := say(t, append(nothings[name], flags...)...)
		plain := func(text string) string {
			return regexp.MustCompile(`\b[a-z]+_[0-9a-z]{26}\b`).ReplaceAllString(text, "<id>")
		}
		if plain(output) != plain(otherOutput) || plain(failure) != plain(otherFailure) {
			t.Errorf("%s tells what is another tenant's from nothing:\n%s %s\n%s %s", name, output, failure, otherOutput, otherFailure)
		}
		if strings.Contains(output+failure, canary) || strings.Contains(output, attempt.DeliveryId) {
			t.Errorf("%s shows what is another tenant's: %s %s", name, output, failure)
		}
	}
	walk(newRoot())

	for name, args := range map[string][]string{"kapsel proof": known["kapsel proof"], "kapsel deadletters": known["kapsel deadletters"], "kapsel keys list": known["kapsel keys list"]} {
		deadline := time.Now().Add(15 * time.Second)
		for {
			output, failure := say(t, append(args, "--url", url, "--api-key", theirs)...)
			if failure == "" && (output != "" || name == "kapsel proof") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not work for its owner, so that it shows nothing: %s %s", name, output, failure)
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
}
