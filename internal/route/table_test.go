package route

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/filter"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/jsonpath"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

const github = `{"preset":"github"}`

// verifies reports whether the endpoint takes a body that was signed with that secret.
func verifies(t *testing.T, endpoint *Endpoint, secret string) bool {
	t.Helper()
	body := []byte(`{"zen":"Keep it logically awesome."}`)
	header, err := signature.Sign(signature.Config{Preset: signature.PresetGitHub}, []byte(secret), body, time.Now(), "1")
	if err != nil {
		t.Fatal(err)
	}
	return endpoint.Verifier.Verify(signature.Request{Header: header, Body: body}, time.Now()) == nil
}

func TestSnapshotHoldsWhatTheTablesSay(t *testing.T) {
	r := newRig(t)
	endpointID := r.endpoint(github, `{"source":"DEDUPLICATION_SOURCE_HEADER","header":"x-delivery","window":"90s"}`,
		`{"kind":"EVENT_TYPE_SOURCE_KIND_JSON_PATH","jsonPath":"meta.kind"}`)
	r.endpointSecret(endpointID, githubSecret)
	r.endpointSecret(endpointID, "second")
	destinationID := r.destination(endpointID, `{"eventTypes":["push","invoice.*"]}`, `{"maxAttempts":3,"base":"1s"}`)
	snapshot := r.refresh()

	endpoint := snapshot.Endpoint(endpointID)
	if endpoint == nil {
		t.Fatalf("endpoint is not in the snapshot: %s", r.logged.String())
	}
	if endpoint.TenantID != r.tenant || !endpoint.Enabled || endpoint.Preset != "github" || !endpoint.RequireJSON || endpoint.MaxBodyBytes != 4096 {
		t.Errorf("endpoint: %+v", endpoint)
	}
	if want := (Dedup{Source: DedupHeader, Name: "X-Delivery", Window: 90 * time.Second}); !reflect.DeepEqual(endpoint.Dedup, want) {
		t.Errorf("deduplication: got %+v, want %+v", endpoint.Dedup, want)
	}
	if want := (EventType{Source: EventTypeJSONPath, Path: jsonpath.Parse("meta.kind")}); !reflect.DeepEqual(endpoint.EventType, want) {
		t.Errorf("event type: got %+v, want %+v", endpoint.EventType, want)
	}
	if !verifies(t, endpoint, githubSecret) || !verifies(t, endpoint, "second") || verifies(t, endpoint, "third") {
		t.Error("the endpoint takes not just what its two secrets signed")
	}

	destination := snapshot.Destination(destinationID)
	if destination == nil {
		t.Fatalf("destination is not in the snapshot: %s", r.logged.String())
	}
	if destination.URL != "https://example.com/in" || !destination.Active || destination.ConnectTimeout != 1500*time.Millisecond ||
		destination.Timeout != 2500*time.Millisecond || destination.MaxInFlight != 7 || destination.EndpointID != endpointID {
		t.Errorf("destination: %+v", destination)
	}
	if want := (http.Header{"X-Team": {"a", "b"}}); !reflect.DeepEqual(destination.Headers, want) {
		t.Errorf("headers: got %v, want %v", destination.Headers, want)
	}
	if !destination.ForwardAll || !slices.Contains(destination.Forwarded, "X-Request-Id") {
		t.Errorf("forwarded headers: all %v, names %v", destination.ForwardAll, destination.Forwarded)
	}
	if !slices.Equal(endpoint.Destinations, []*Destination{destination}) {
		t.Errorf("destinations of the endpoint: %v", endpoint.Destinations)
	}
	for eventType, want := range map[string]bool{"push": true, "pushed": false, "invoice.paid": true, "invoice.": true, "invoice": false, "": false} {
		if got := destination.Filter.MatchesType(eventType); got != want {
			t.Errorf("Matches(%q): got %v, want %v", eventType, got, want)
		}
	}
	if len(snapshot.InactiveDestinations()) != 0 || r.logged.Len() != 0 {
		t.Errorf("inactive %v, logged %s", snapshot.InactiveDestinations(), r.logged.String())
	}
}

func TestAStarAloneMatchesEveryEventType(t *testing.T) {
	for _, types := range [][]string{nil, {"*"}, {"push", "*"}} {
		for _, eventType := range []string{"", "push", "a.b"} {
			if d := (&Destination{Filter: filter.Types(types)}); !d.Filter.MatchesType(eventType) {
				t.Errorf("filter %v does not match %q", types, eventType)
			}
		}
	}
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	r := newRig(t)
	endpointID := r.endpoint(`{}`, `{}`, `{}`)
	destinationID := r.destination(endpointID, `{}`, `{}`)
	snapshot := r.refresh()
	endpoint, destination := snapshot.Endpoint(endpointID), snapshot.Destination(destinationID)
	if endpoint.Preset != "none" || !reflect.DeepEqual(endpoint.Dedup, Dedup{Window: 24 * time.Hour}) || !reflect.DeepEqual(endpoint.EventType, EventType{}) {
		t.Errorf("endpoint: %+v", endpoint)
	}
	if !destination.Filter.MatchesType("anything") || !destination.Filter.MatchesType("") {
		t.Error("an empty filter does not match everything")
	}
	total := time.Duration(0)
	for _, wait := range destination.Retry.Schedule {
		total += wait
	}
	if destination.Retry.MaxAttempts != 10 || total < 74*time.Hour || total > 77*time.Hour {
		t.Errorf("retry policy: %d attempts over %v, want 10 over about 75 h", destination.Retry.MaxAttempts, total)
	}
	if destination.Retry.Jitter != 0.1 || destination.Retry.MaxAge != 0 || destination.Retry.FatalStatuses != nil {
		t.Errorf("retry policy: %+v", destination.Retry)
	}
}

func TestRetryPolicyFollowsTheContract(t *testing.T) {
	r := newRig(t)
	endpointID := r.endpoint(`{}`, `{}`, `{}`)
	for _, test := range []struct {
		name, stored string
		want         RetryPolicy
	}{
		{"a schedule sets the number of attempts", `{"schedule":["0s","60s"]}`,
			RetryPolicy{Schedule: []time.Duration{0, time.Minute}, Factor: 2, Cap: 24 * time.Hour, Jitter: 0.1, MaxAttempts: 3}},
		{"more attempts than the schedule has waits", `{"schedule":["1s"],"maxAttempts":5}`,
			RetryPolicy{Schedule: []time.Duration{time.Second}, Factor: 2, Cap: 24 * time.Hour, Jitter: 0.1, MaxAttempts: 5}},
		{"a base means ten attempts, doubling, up to a day", `{"base":"2s"}`,
			RetryPolicy{Base: 2 * time.Second, Factor: 2, Cap: 24 * time.Hour, Jitter: 0.1, MaxAttempts: 10}},
		{"all fields", `{"base":"0.010s","factor":1.5,"cap":"3s","jitter":0,"maxAttempts":1,"maxAge":"3600s","fatalStatuses":[400,401]}`,
			RetryPolicy{Base: 10 * time.Millisecond, Factor: 1.5, Cap: 3 * time.Second, MaxAttempts: 1, MaxAge: time.Hour, FatalStatuses: []int{400, 401}}},
		{"only a number of attempts", `{"maxAttempts":4}`,
			RetryPolicy{Schedule: defaultSchedule, Factor: 2, Cap: 24 * time.Hour, Jitter: 0.1, MaxAttempts: 4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			destinationID := r.destination(endpointID, `{}`, test.stored)
			if got := r.refresh().Destination(destinationID).Retry; !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// A row that cannot be used must neither take others with it nor be used in another way than it says.
func TestABrokenRowHoldsOnlyItsOwnTraffic(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(r *rig, endpoint, destination uuid.UUID)
		names  func(endpoint, destination uuid.UUID) string
		routed bool // the endpoint still takes webhooks
		held   bool // the destination's deliveries wait
	}{
		{"verification of an unknown preset", func(r *rig, endpoint, _ uuid.UUID) {
			r.exec(`update endpoints set verification = '{"preset":"nobody"}' where endpoint_id = $1`, endpoint)
		}, func(endpoint, _ uuid.UUID) string { return id.Endpoint.Text(endpoint) }, false, false},
		{"deduplication of a wrong type", func(r *rig, endpoint, _ uuid.UUID) {
			r.exec(`update endpoints set deduplication = '{"window":7}' where endpoint_id = $1`, endpoint)
		}, func(endpoint, _ uuid.UUID) string { return id.Endpoint.Text(endpoint) }, false, false},
		{"the endpoint's only secret cannot be read", func(r *rig, endpoint, _ uuid.UUID) {
			r.exec(`update endpoint_secrets set ciphertext = '\x00' where endpoint_id = $1`, endpoint)
		}, func(endpoint, _ uuid.UUID) string { return id.Endpoint.Text(endpoint) }, false, false},
		{"one of the endpoint's secrets cannot be read", func(r *rig, endpoint, _ uuid.UUID) {
			r.exec(`update endpoint_secrets set ciphertext = '\x00' where secret_id = $1`, r.endpointSecret(endpoint, "second"))
		}, func(endpoint, _ uuid.UUID) string { return id.Endpoint.Text(endpoint) }, false, false},
		{"the endpoint's secret is another row's", func(r *rig, endpoint, _ uuid.UUID) {
			r.exec(`update endpoint_secrets set secret_id = $2 where endpoint_id = $1`, endpoint, id.New())
		}, func(endpoint, _ uuid.UUID) string { return id.Endpoint.Text(endpoint) }, false, false},
		{"a retry policy of a wrong type", func(r *rig, _, destination uuid.UUID) {
			r.exec(`update destinations set retry_policy = '{"maxAttempts":"many"}' where destination_id = $1`, destination)
		}, func(_, destination uuid.UUID) string { return id.Destination.Text(destination) }, true, true},
		{"headers that are not a list", func(r *rig, _, destination uuid.UUID) {
			r.exec(`update destinations set headers = '{"a":1}' where destination_id = $1`, destination)
		}, func(_, destination uuid.UUID) string { return id.Destination.Text(destination) }, true, true},
		{"the destination's only secret cannot be read", func(r *rig, _, destination uuid.UUID) {
			r.exec(`update destination_secrets set ciphertext = ciphertext || '\x00' where destination_id = $1`, destination)
		}, func(_, destination uuid.UUID) string { return id.Destination.Text(destination) }, true, true},
		{"the destination's secret has expired", func(r *rig, _, destination uuid.UUID) {
			r.exec(`update destination_secrets set expires_at = now() where destination_id = $1`, destination)
		}, func(_, destination uuid.UUID) string { return id.Destination.Text(destination) }, true, true},
		{"a paused destination", func(r *rig, _, destination uuid.UUID) {
			r.exec(`update destinations set state = 'paused' where destination_id = $1`, destination)
		}, nil, true, true},
		{"a disabled destination", func(r *rig, _, destination uuid.UUID) {
			r.exec(`update destinations set state = 'disabled' where destination_id = $1`, destination)
		}, nil, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			endpoint := r.endpoint(github, `{}`, `{}`)
			r.endpointSecret(endpoint, githubSecret)
			destination := r.destination(endpoint, `{"eventTypes":["push"]}`, `{}`)
			other := r.endpoint(github, `{}`, `{}`)
			r.endpointSecret(other, githubSecret)
			otherDestination := r.destination(other, `{}`, `{}`)
			test.damage(r, endpoint, destination)
			snapshot := r.refresh()

			if e := snapshot.Endpoint(other); e == nil || len(e.Destinations) != 1 || !verifies(t, e, githubSecret) {
				t.Errorf("the other endpoint suffers: %+v", e)
			}
			if d := snapshot.Destination(otherDestination); d == nil || !d.Active {
				t.Errorf("the other destination suffers: %+v", d)
			}
			if e := snapshot.Endpoint(endpoint); e == nil || (e.Broken == "") != test.routed || !e.Enabled {
				t.Errorf("endpoint: got %+v, want it to take webhooks: %v", e, test.routed)
			}
			if got := slices.Equal(snapshot.InactiveDestinations(), []uuid.UUID{destination}); got != test.held {
				t.Errorf("inactive destinations %v: held %v, want %v", snapshot.InactiveDestinations(), got, test.held)
			}
			// Deliveries are still made for it, just those that it takes, and wait.
			if d := snapshot.Destination(destination); d == nil || d.Active == test.held || !d.Filter.MatchesType("push") || d.Filter.MatchesType("pull") {
				t.Errorf("destination: %+v", d)
			}
			if e := snapshot.Endpoint(endpoint); e != nil && !slices.Equal(e.Destinations, []*Destination{snapshot.Destination(destination)}) {
				t.Errorf("destinations of the endpoint: %v", e.Destinations)
			}
			if test.names != nil && !strings.Contains(r.logged.String(), test.names(endpoint, destination)) {
				t.Errorf("the log does not name the row: %s", r.logged.String())
			}
			if strings.Contains(r.logged.String(), "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") || strings.Contains(r.logged.String(), githubSecret) {
				t.Errorf("the log holds a secret: %s", r.logged.String())
			}
		})
	}
}

func TestDisabledEndpointsAndSuspendedTenantsTakeNothing(t *testing.T) {
	r := newRig(t)
	endpoint := r.endpoint(`{}`, `{}`, `{}`)
	if !r.refresh().Endpoint(endpoint).Enabled {
		t.Fatal("a new endpoint is not enabled")
	}
	r.exec(`update endpoints set state = 'disabled'`)
	if r.refresh().Endpoint(endpoint).Enabled {
		t.Error("a disabled endpoint is enabled")
	}
	r.exec(`update endpoints set state = 'enabled'`)
	r.exec(`update tenants set state = 'suspended'`)
	destination := r.destination(endpoint, `{}`, `{}`)
	snapshot := r.refresh()
	if !snapshot.Endpoint(endpoint).Suspended || snapshot.Destination(destination).Active || !slices.Equal(snapshot.InactiveDestinations(), []uuid.UUID{destination}) {
		t.Error("the endpoint of a suspended tenant takes webhooks, or its destination gets them")
	}
	r.exec(`update tenants set state = 'deleting'`)
	if snapshot := r.refresh(); snapshot.Endpoint(endpoint) != nil || snapshot.Destination(destination).Active {
		t.Error("a tenant that is being deleted has an endpoint, or a destination that is delivered to")
	}
	r.exec(`update tenants set state = 'active'`)
	if snapshot := r.refresh(); snapshot.Endpoint(endpoint).Suspended || !snapshot.Destination(destination).Active {
		t.Error("the tenant is active again, and its endpoint or destination is not")
	}
}

func TestExpiredSecretsVerifyNoMore(t *testing.T) {
	r := newRig(t)
	endpoint := r.endpoint(github, `{}`, `{}`)
	old := r.endpointSecret(endpoint, githubSecret)
	r.endpointSecret(endpoint, "new")
	r.exec(`update endpoint_secrets set expires_at = now() + interval '1 hour' where secret_id = $1`, old)
	if e := r.refresh().Endpoint(endpoint); !verifies(t, e, githubSecret) || !verifies(t, e, "new") {
		t.Error("during the overlap both secrets must verify")
	}
	r.exec(`update endpoint_secrets set expires_at = now() where secret_id = $1`, old)
	if e := r.refresh().Endpoint(endpoint); verifies(t, e, githubSecret) || !verifies(t, e, "new") {
		t.Error("after the overlap only the new secret may verify")
	}
}

func TestASnapshotNeverChanges(t *testing.T) {
	r := newRig(t)
	endpoint := r.endpoint(`{}`, `{}`, `{}`)
	before := r.refresh()
	r.destination(endpoint, `{}`, `{}`)
	after := r.refresh()
	if len(before.Endpoint(endpoint).Destinations) != 0 || len(after.Endpoint(endpoint).Destinations) != 1 {
		t.Errorf("destinations before %v, after %v", before.Endpoint(endpoint).Destinations, after.Endpoint(endpoint).Destinations)
	}
}

// A change reaches the snapshot by its notice, long before the next poll.
func TestNoticesBringChangesIn(t *testing.T) {
	r := newRig(t)
	r.refresh()
	ctx, cancel := context.WithCancel(t.Context())
	connected := make(chan struct{}, 1)
	done := make(chan error, 2)
	listener := store.NewListener(r.url, r.log, map[string]func(string){"kapsel_routes": func(payload string) {
		if payload == "" {
			connected <- struct{}{}
			return
		}
		r.Poke()
	}})
	go func() { done <- listener.Run(ctx) }()
	<-connected
	go func() { done <- r.Run(ctx) }()
	endpoint := r.endpoint(`{}`, `{}`, `{}`)
	for deadline := time.Now().Add(pollInterval - time.Second); r.Snapshot().Endpoint(endpoint) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("the new endpoint did not come before a poll")
			break
		}
	}
	cancel()
	<-done
	<-done
}

func TestTheLastSnapshotStaysWhenTheDatabaseIsAway(t *testing.T) {
	r := newRig(t)
	endpoint := r.endpoint(`{}`, `{}`, `{}`)
	r.refresh()
	r.db.Close()
	if err := r.Refresh(t.Context()); err == nil {
		t.Fatal("refresh without a database succeeded")
	}
	if r.Snapshot().Endpoint(endpoint) == nil {
		t.Error("a failed refresh emptied the snapshot")
	}
}

func TestLimitsOfTheTenantAreInTheSnapshot(t *testing.T) {
	r := newRig(t)
	endpointID := r.endpoint(`{"preset":"none"}`, `{}`, `{}`)
	for _, test := range []struct {
		set          string
		want         Limits
		maxBodyBytes int
	}{
		{"ingest_per_second = null", Limits{}, 4096},
		{"ingest_per_second = 5", Limits{PerSecond: 5, Burst: 5}, 4096}, // a burst of a second unless it says another
		{"ingest_burst = 20, ingest_per_day = 1000", Limits{PerSecond: 5, Burst: 20, PerDay: 1000}, 4096},
		{"max_body_bytes = 100", Limits{PerSecond: 5, Burst: 20, PerDay: 1000}, 100},
		{"max_body_bytes = 100000", Limits{PerSecond: 5, Burst: 20, PerDay: 1000}, 4096},
		{"ingest_bytes_per_day = 50", Limits{PerSecond: 5, Burst: 20, PerDay: 1000, BytesPerDay: 50}, 50}, // a larger one would never fit
		{"ingest_per_second = null, ingest_bytes_per_day = null", Limits{PerDay: 1000}, 4096},             // a burst of no rate is none
	} {
		r.exec("update tenants set "+test.set+" where tenant_id = $1", r.tenant)
		endpoint := r.refresh().Endpoint(endpointID)
		if endpoint.Limits != test.want || endpoint.MaxBodyBytes != test.maxBodyBytes {
			t.Errorf("%s: %+v and %d bytes, want %+v and %d", test.set, endpoint.Limits, endpoint.MaxBodyBytes, test.want, test.maxBodyBytes)
		}
	}
}
