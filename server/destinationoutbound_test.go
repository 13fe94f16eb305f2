package server

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/certtest"
	"github.com/kapsel-dev/kapsel/internal/id"
)

const outboundSecret = "oauth-canary-secret"

func outboundDestination(t *testing.T, endpointID string) *kapselv1.Destination {
	ca := certtest.New(t)
	pair := ca.Issue(t, "kapsel.example.com")
	return &kapselv1.Destination{
		EndpointId: endpointID, Url: "https://hooks.example.com/in",
		ClientTls: &kapselv1.ClientTls{CertificateChain: string(pair.Certificate), PrivateKey: string(pair.Key), TrustedAuthorities: string(ca.PEM)},
		ClientCredentials: &kapselv1.ClientCredentials{
			TokenUrl: "https://login.example.com/token", ClientId: "kapsel", ClientSecret: outboundSecret, Scopes: []string{"hooks"},
		},
	}
}

func TestOutboundCredentialsAreTakenAndNeverShown(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	given := outboundDestination(t, e.Id)
	created := r.destination(a, proto.CloneOf(given))
	update := func(d *kapselv1.Destination, paths ...string) (*kapselv1.UpdateDestinationResponse, error) {
		return a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{
			DestinationId: created.Id, Destination: d, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
	}
	compiled := func() (certificate bool, clientSecret string) {
		d := r.deps.Routes.Snapshot().Destination(must(id.Destination.Parse(created.Id))(t))
		if d.Broken != "" {
			t.Fatalf("broken: %s", d.Broken)
		}
		if d.ClientCredentials != nil {
			clientSecret = string(d.ClientCredentials.ClientSecret.Reveal())
		}
		return d.ClientTLS != nil && len(d.ClientTLS.Config.Certificates) == 1, clientSecret
	}
	if has, value := compiled(); !has || value != outboundSecret {
		t.Errorf("compiled: certificate %v, secret %q", has, value)
	}
	got := must(a.destinations.GetDestination(t.Context(), &kapselv1.GetDestinationRequest{DestinationId: created.Id}))(t).Destination
	listed := must(a.destinations.ListDestinations(t.Context(), &kapselv1.ListDestinationsRequest{}))(t).Destinations[0]
	for _, d := range []*kapselv1.Destination{created, got, listed} {
		if text := d.String(); strings.Contains(text, outboundSecret) || strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("shown: %s", text)
		}
		if d.ClientTls.CertificateChain != given.ClientTls.CertificateChain || time.Until(d.ClientTls.CertificateExpireTime.AsTime()) < time.Hour ||
			d.ClientCredentials.TokenUrl != given.ClientCredentials.TokenUrl {
			t.Errorf("shown: %v", d)
		}
	}
	if r.logged.contains(outboundSecret) || r.logged.contains("PRIVATE KEY") {
		t.Error("the log shows a secret")
	}
	var dump string
	if err := r.db.Engine().QueryRow(t.Context(), `select string_agg(d::text, ' ') || (select string_agg(encode(ciphertext, 'escape'), ' ') from destination_credentials)
		from destinations d`).Scan(&dump); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(dump, outboundSecret) || strings.Contains(dump, "PRIVATE KEY") {
		t.Error("the database has a secret in the clear")
	}

	// What an update leaves out it keeps, but sends to nobody else.
	kept := proto.CloneOf(got)
	kept.ClientCredentials.Scopes = []string{"other"}
	must(update(kept, "client_tls", "client_credentials"))(t)
	if has, value := compiled(); !has || value != outboundSecret {
		t.Errorf("after an update without secrets: certificate %v, secret %q", has, value)
	}
	moved := proto.CloneOf(got)
	moved.ClientCredentials.TokenUrl = "https://evil.example.com/token"
	_, err := update(moved, "client_credentials")
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
	_, err = update(moved, "client_credentials.token_url")
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
	_, err = update(&kapselv1.Destination{Url: "http://hooks.example.com/in"}, "url")
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
	must(update(new(kapselv1.Destination), "client_tls", "client_credentials"))(t)
	if has, value := compiled(); has || value != "" {
		t.Errorf("after they were removed: certificate %v, secret %q", has, value)
	}
	var left int
	if err := r.db.Engine().QueryRow(t.Context(), `select count(*) from destination_credentials`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d credentials are left (%v)", left, err)
	}
}

func TestOutboundSettingsThatCannotBeAreRefused(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	ca := certtest.New(t)
	ended := ca.IssueUntil(t, "kapsel.example.com", time.Now().Add(-time.Minute))
	for name, change := range map[string]func(d *kapselv1.Destination){
		"http":           func(d *kapselv1.Destination) { d.Url = "http://hooks.example.com/" },
		"no key":         func(d *kapselv1.Destination) { d.ClientTls.PrivateKey = "" },
		"another's key":  func(d *kapselv1.Destination) { d.ClientTls.PrivateKey = string(ca.Issue(t, "b").Key) },
		"no certificate": func(d *kapselv1.Destination) { d.ClientTls.CertificateChain = "hello" },
		"ended": func(d *kapselv1.Destination) {
			d.ClientTls.CertificateChain, d.ClientTls.PrivateKey = string(ended.Certificate), string(ended.Key)
		},
		"authority":            func(d *kapselv1.Destination) { d.ClientTls.TrustedAuthorities = "hello" },
		"authority is a key":   func(d *kapselv1.Destination) { d.ClientTls.TrustedAuthorities = string(ca.Issue(t, "b").Key) },
		"empty":                func(d *kapselv1.Destination) { d.ClientTls = new(kapselv1.ClientTls) },
		"token URL in clear":   func(d *kapselv1.Destination) { d.ClientCredentials.TokenUrl = "http://login.example.com/" },
		"token URL with user":  func(d *kapselv1.Destination) { d.ClientCredentials.TokenUrl = "https://a:b@login.example.com/" },
		"no secret":            func(d *kapselv1.Destination) { d.ClientCredentials.ClientSecret = "" },
		"no id":                func(d *kapselv1.Destination) { d.ClientCredentials.ClientId = "" },
		"scope with quotes":    func(d *kapselv1.Destination) { d.ClientCredentials.Scopes = []string{`a"b`} },
		"Authorization header": func(d *kapselv1.Destination) { d.Headers = []*kapselv1.Header{{Name: "authorization", Value: "x"}} },
	} {
		d := outboundDestination(t, e.Id)
		change(d)
		_, err := a.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{Destination: d})
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v, want INVALID_ARGUMENT", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), outboundSecret) || strings.Contains(err.Error(), "PRIVATE")) {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
}

// Nothing is sent with less than was asked for: the destination stops, and says why.
func TestUnreadableCredentialStopsTheDestination(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	good := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	d := r.destination(a, outboundDestination(t, e.Id))
	if _, err := r.db.Engine().Exec(t.Context(), `update destination_credentials set ciphertext = '\x00' where kind = 'client_secret'`); err != nil {
		t.Fatal(err)
	}
	if err := r.deps.Routes.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	attempt := must(a.destinations.SendTest(t.Context(), &kapselv1.SendTestRequest{DestinationId: d.Id}))(t).Attempt
	if attempt.Failure != leafv1.Failure_FAILURE_CONFIGURATION || attempt.StatusCode != 0 {
		t.Errorf("attempt: %v", attempt)
	}
	shown := must(a.destinations.ListDestinations(t.Context(), &kapselv1.ListDestinationsRequest{}))(t).Destinations
	for _, got := range shown {
		disabled := got.State == kapselv1.DestinationState_DESTINATION_STATE_DISABLED && got.DisableReason == kapselv1.DisableReason_DISABLE_REASON_CONFIGURATION
		if disabled != (got.Id == d.Id) {
			t.Errorf("destination: %v", got)
		}
	}
	if got := must(a.destinations.SendTest(t.Context(), &kapselv1.SendTestRequest{DestinationId: good.Id}))(t).Attempt; got.StatusCode != 200 {
		t.Errorf("the other destination: %v", got)
	}
}

// A signing secret that does not open fails no list, and is replaced by a rotation.
func TestUnreadableSecretFailsNoListAndCanBeRotated(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	v1a := &kapselv1.Signing{Scheme: kapselv1.SigningScheme_SIGNING_SCHEME_V1A}
	good := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200), Signing: v1a})
	bad := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200), Signing: v1a})
	if _, err := r.db.Engine().Exec(t.Context(), `update destination_secrets set ciphertext = '\x00' where destination_id = $1`, must(id.Destination.Parse(bad.Id))(t)); err != nil {
		t.Fatal(err)
	}
	for _, d := range must(a.destinations.ListDestinations(t.Context(), &kapselv1.ListDestinationsRequest{}))(t).Destinations {
		if (len(d.PublicKeys) == 1) != (d.Id == good.Id) {
			t.Errorf("destination: %v", d)
		}
	}
	rotated := must(a.destinations.RotateDestinationSecret(t.Context(), &kapselv1.RotateDestinationSecretRequest{DestinationId: bad.Id, Overlap: durationpb.New(0)}))(t).Destination
	if len(rotated.PublicKeys) != 1 || len(rotated.Secrets) != 1 {
		t.Errorf("rotated: %v", rotated)
	}
	if got := must(a.destinations.SendTest(t.Context(), &kapselv1.SendTestRequest{DestinationId: bad.Id}))(t).Attempt; got.StatusCode != 200 {
		t.Errorf("after the rotation: %v", got)
	}
}
