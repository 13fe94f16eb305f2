package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

func headers(pairs ...string) (list []*kapselv1.Header) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, &kapselv1.Header{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func TestHeaderValuesAreSealedAndKeptByName(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/", Headers: headers("Authorization", "Bearer canary-1", "X-Team", "canary-2")})
	destinationID := must(id.Destination.Parse(d.Id))(t)
	compiled := func() http.Header {
		t.Helper()
		route := r.deps.Routes.Snapshot().Destination(destinationID)
		if route.Broken != "" {
			t.Fatalf("broken: %s", route.Broken)
		}
		return route.Headers
	}
	stored := func() string {
		t.Helper()
		var text string
		if err := r.db.Engine().QueryRow(t.Context(), "select to_jsonb(d)::text from destinations d").Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	update := func(d *kapselv1.Destination, paths ...string) *kapselv1.Destination {
		t.Helper()
		response, err := a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{DestinationId: id.Destination.Text(destinationID), Destination: d, UpdateMask: mask(paths...)})
		if err != nil {
			t.Fatal(err)
		}
		return response.Destination
	}
	check := func(what string, answer *kapselv1.Destination, want http.Header) {
		t.Helper()
		if diff := cmp.Diff(want, compiled()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if text := answer.String() + stored(); strings.Contains(text, "canary") {
			t.Errorf("%s: a value in the clear in %s", what, text)
		}
	}
	check("created", d, http.Header{"Authorization": {"Bearer canary-1"}, "X-Team": {"canary-2"}})

	got := must(a.destinations.GetDestination(t.Context(), &kapselv1.GetDestinationRequest{DestinationId: d.Id}))(t).Destination
	check("written back as it was read", update(got, "headers", "display_name"), http.Header{"Authorization": {"Bearer canary-1"}, "X-Team": {"canary-2"}})
	check("another field", update(&kapselv1.Destination{DisplayName: "b"}, "display_name"), http.Header{"Authorization": {"Bearer canary-1"}, "X-Team": {"canary-2"}})
	check("one value of a name more, the order changed", update(&kapselv1.Destination{Headers: headers("x-team", "", "X-Team", "canary-3", "X-New", "", "authorization", "")}, "headers"),
		http.Header{"Authorization": {"Bearer canary-1"}, "X-Team": {"canary-2", "canary-3"}, "X-New": {""}})
	check("one changed, one left out", update(&kapselv1.Destination{Headers: headers("X-Team", "", "X-Team", "canary-4")}, "headers"),
		http.Header{"X-Team": {"canary-2", "canary-4"}})

	// As an earlier version stored them.
	column, _ := json.Marshal([]map[string]string{{"name": "X-Old", "value": "canary-5"}})
	for _, sql := range []string{"delete from destination_credentials", `update destinations set headers = '` + string(column) + `'`} {
		if _, err := r.db.Engine().Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.deps.Routes.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := compiled().Get("X-Old"); got != "canary-5" {
		t.Errorf("the value of an earlier version is %q", got)
	}
	check("the next change seals it", update(&kapselv1.Destination{DisplayName: "c"}, "display_name"), http.Header{"X-Old": {"canary-5"}})

	check("none", update(new(kapselv1.Destination), "headers"), http.Header{})
	var left int
	if err := r.db.Engine().QueryRow(t.Context(), "select count(*) from destination_credentials").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d credentials are left of headers that are gone (%v)", left, err)
	}
}

func TestUnreadableHeaderStopsTheDestinationUntilItIsGivenAnew(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/", Headers: headers("Authorization", "canary")})
	for _, damage := range []string{`update destination_credentials set ciphertext = '\x00'`, "delete from destination_credentials"} {
		if _, err := r.db.Engine().Exec(t.Context(), damage); err != nil {
			t.Fatal(err)
		}
		if err := r.deps.Routes.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if route := r.deps.Routes.Snapshot().Destination(must(id.Destination.Parse(d.Id))(t)); route.Broken == "" || route.Active {
			t.Errorf("%s: deliveries go out without the header", damage)
		}
		change := func(value string) error {
			_, err := a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{
				DestinationId: d.Id, Destination: &kapselv1.Destination{Headers: headers("X-More", "1", "Authorization", value)}, UpdateMask: mask("headers"),
			})
			return err
		}
		wantReason(t, change(""), connect.CodeInvalidArgument, "INVALID_REQUEST")
		if err := change("anew"); err != nil {
			t.Errorf("%s: %v", damage, err)
		}
		if route := r.deps.Routes.Snapshot().Destination(must(id.Destination.Parse(d.Id))(t)); route.Broken != "" || route.Headers.Get("Authorization") != "anew" {
			t.Errorf("%s: after the values were given: %q", damage, route.Broken)
		}
	}
}

// An earlier version would leave out what it does not know.
func TestWhatANodeOfAnEarlierVersionWouldLeaveOutWaitsForItsUpgrade(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	plain := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"})
	if _, err := r.db.Engine().Exec(t.Context(), "insert into nodes (node_id, name, version, roles) values ($1, 'old', '0', '{ingest}')", uuid.New()); err != nil {
		t.Fatal(err)
	}
	create := func(d *kapselv1.Destination) error {
		_, err := a.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{Destination: d})
		return err
	}
	wantReason(t, create(outboundDestination(t, e.Id)), connect.CodeFailedPrecondition, "UPGRADE_UNDER_WAY")
	wantReason(t, create(&kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/", Headers: headers("X", "y")}), connect.CodeFailedPrecondition, "UPGRADE_UNDER_WAY")
	_, err := a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{
		DestinationId: plain.Id, Destination: &kapselv1.Destination{Headers: headers("X", "y")}, UpdateMask: mask("headers"),
	})
	wantReason(t, err, connect.CodeFailedPrecondition, "UPGRADE_UNDER_WAY")
	stream, err := a.listen.Listen(t.Context(), &kapselv1.ListenRequest{})
	if err == nil {
		defer stream.Close()
		_, err = stream.Receive()
	}
	wantReason(t, err, connect.CodeFailedPrecondition, "UPGRADE_UNDER_WAY")
	if err := create(&kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"}); err != nil {
		t.Errorf("a destination that every version honours: %v", err)
	}
	for _, upgraded := range []string{"update nodes set heartbeat_at = now() - interval '1 minute'", "update nodes set heartbeat_at = now(), features = 1"} {
		if _, err := r.db.Engine().Exec(t.Context(), upgraded); err != nil {
			t.Fatal(err)
		}
		if err := create(outboundDestination(t, e.Id)); err != nil {
			t.Errorf("%s: %v", upgraded, err)
		}
	}
}
