package kapsel_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

var fast = kapsel.Retry{MaxAttempts: 4, InitialWait: time.Millisecond, MaxWait: 2 * time.Millisecond}

// faulty is a server that fails as it is told.
type faulty struct {
	kapselv1connect.UnimplementedEventServiceHandler
	kapselv1connect.UnimplementedEndpointServiceHandler
	kapselv1connect.UnimplementedIngestServiceHandler
	err      error
	failures int32
	calls    atomic.Int32
	keys     []string
}

func (f *faulty) answer() error {
	if f.calls.Add(1) <= f.failures {
		return f.err
	}
	return nil
}

func (f *faulty) GetEvent(context.Context, *kapselv1.GetEventRequest) (*kapselv1.GetEventResponse, error) {
	return new(kapselv1.GetEventResponse), f.answer()
}

func (f *faulty) CreateEndpoint(context.Context, *kapselv1.CreateEndpointRequest) (*kapselv1.CreateEndpointResponse, error) {
	return new(kapselv1.CreateEndpointResponse), f.answer()
}

func (f *faulty) Ingest(_ context.Context, request *kapselv1.IngestRequest) (*kapselv1.IngestResponse, error) {
	for _, header := range request.Headers {
		if header.Name == "Idempotency-Key" {
			f.keys = append(f.keys, header.Value)
		}
	}
	return new(kapselv1.IngestResponse), f.answer()
}

func (f *faulty) client(t *testing.T, options ...kapsel.Option) *kapsel.Client {
	t.Helper()
	server := connect.NewServer()
	kapselv1connect.RegisterEventServiceHandler(server, f)
	kapselv1connect.RegisterEndpointServiceHandler(server, f)
	kapselv1connect.RegisterIngestServiceHandler(server, f)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	listening := httptest.NewServer(mux)
	t.Cleanup(listening.Close)
	client, err := kapsel.New(listening.URL+"/", append([]kapsel.Option{kapsel.WithRetry(fast), kapsel.WithAPIKey("kps_test")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func failure(code connect.Code, details ...proto.Message) error {
	err := connect.NewError(code, "no")
	for _, message := range details {
		detail, encodeErr := connectproto.NewErrorDetail(message)
		if encodeErr != nil {
			panic(encodeErr)
		}
		err = err.WithDetail(detail)
	}
	return err
}

var soon = &errdetails.RetryInfo{RetryDelay: durationpb.New(30 * time.Millisecond)}

func TestCallsAreTriedAgainWhereThatIsSafe(t *testing.T) {
	read := func(ctx context.Context, c *kapsel.Client) error {
		_, err := c.Events.GetEvent(ctx, new(kapselv1.GetEventRequest))
		return err
	}
	create := func(ctx context.Context, c *kapsel.Client) error {
		_, err := c.Endpoints.CreateEndpoint(ctx, new(kapselv1.CreateEndpointRequest))
		return err
	}
	for _, test := range []struct {
		name  string
		err   error
		call  func(context.Context, *kapsel.Client) error
		calls int32
	}{
		{"a read", failure(connect.CodeUnavailable), read, 3},
		{"a read that is wrong", failure(connect.CodeNotFound), read, 1},
		{"what may have had an effect", failure(connect.CodeUnavailable), create, 1},
		{"what was refused before it had an effect", failure(connect.CodeResourceExhausted, soon), create, 3},
		{"what is over a quota", failure(connect.CodeResourceExhausted), create, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &faulty{err: test.err, failures: 2}
			began := time.Now()
			err := test.call(t.Context(), f.client(t))
			if got := f.calls.Load(); got != test.calls || (err == nil) != (test.calls == 3) {
				t.Errorf("%d calls and error %v, want %d calls", got, err, test.calls)
			}
			if _, asked := kapsel.RetryDelay(test.err); asked && time.Since(began) < 60*time.Millisecond {
				t.Error("the wait that the server asked for was not kept")
			}
		})
	}
}

func TestTriesAndTimeAreBounded(t *testing.T) {
	f := &faulty{err: failure(connect.CodeUnavailable), failures: 100}
	_, err := f.client(t).Events.GetEvent(t.Context(), new(kapselv1.GetEventRequest))
	if connect.CodeOf(err) != connect.CodeUnavailable || f.calls.Load() != 4 {
		t.Errorf("%d calls and error %v", f.calls.Load(), err)
	}
	f = &faulty{err: failure(connect.CodeUnavailable, soon), failures: 1000}
	client := f.client(t, kapsel.WithRetry(kapsel.Retry{MaxAttempts: 1000}), kapsel.WithTimeout(100*time.Millisecond))
	if _, err = client.Events.GetEvent(t.Context(), new(kapselv1.GetEventRequest)); err == nil || f.calls.Load() > 4 {
		t.Errorf("%d calls and error %v", f.calls.Load(), err)
	}
}

// cancelingStream ends the call's context once the server has failed it.
type cancelingStream struct {
	connect.ClientStream
	cancel context.CancelFunc
}

func (s cancelingStream) Receive(message any) error {
	err := s.ClientStream.Receive(message)
	time.AfterFunc(time.Millisecond, s.cancel)
	return err
}

func TestCancelingTheWaitForAnotherTryIsACancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	canceling := func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			stream, err := next(ctx, spec)
			return cancelingStream{stream, cancel}, err
		}
	}
	server := &faulty{err: failure(connect.CodeUnavailable), failures: 1}
	client := server.client(t, kapsel.WithRetry(kapsel.Retry{MaxAttempts: 2, InitialWait: time.Hour, MaxWait: time.Hour}), kapsel.WithTimeout(0),
		kapsel.WithInterceptors(canceling))
	if _, err := client.Events.GetEvent(ctx, new(kapselv1.GetEventRequest)); connect.CodeOf(err) != connect.CodeCanceled || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestWebhooksAreRepeatedWithOneKey(t *testing.T) {
	f := &faulty{err: failure(connect.CodeUnavailable), failures: 2}
	client := f.client(t)
	request := &kapselv1.IngestRequest{EndpointId: "ep_1", Payload: []byte("x"), Headers: []*kapselv1.Header{{Name: "content-type", Value: "text/plain"}}}
	if _, err := client.Ingest.Ingest(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if len(f.keys) != 3 || len(slices.Compact(f.keys)) != 1 || len(request.Headers) != 1 {
		t.Errorf("keys %q, and the caller's request is now %v", f.keys, request)
	}
	// A key of the provider's own may be in its headers.
	f = &faulty{err: failure(connect.CodeUnavailable), failures: 2}
	request.Headers = append(request.Headers, &kapselv1.Header{Name: "X-GitHub-Delivery", Value: "1"})
	if _, err := f.client(t).Ingest.Ingest(t.Context(), request); err == nil || f.calls.Load() != 1 || len(f.keys) != 0 {
		t.Errorf("%d calls with keys %q and error %v", f.calls.Load(), f.keys, err)
	}
}

func TestErrorsAreRead(t *testing.T) {
	f := &faulty{failures: 1, err: failure(connect.CodeInvalidArgument, &errdetails.ErrorInfo{Reason: "INVALID_REQUEST", Domain: "kapsel.dev"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "event_id", Description: "is missing"}}})}
	_, err := f.client(t).Events.GetEvent(t.Context(), new(kapselv1.GetEventRequest))
	if kapsel.Reason(err) != "INVALID_REQUEST" || len(kapsel.Violations(err)) != 1 || kapsel.Violations(err)[0].Field != "event_id" {
		t.Errorf("got %v: %q, %v", err, kapsel.Reason(err), kapsel.Violations(err))
	}
	if kapsel.Reason(errors.New("other")) != "" || kapsel.Violations(nil) != nil {
		t.Error("other errors have a reason")
	}
}

func TestAddressesThatAreNoneAreRefused(t *testing.T) {
	for _, address := range []string{"", "kapsel", "ftp://x", "https://u:p@x", "https://x?y", "http://", "%"} {
		if _, err := kapsel.New(address); err == nil || !strings.Contains(err.Error(), "URL") {
			t.Errorf("%q: got error %v", address, err)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s came", r.Method, r.URL) }))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{http.StatusMovedPermanently, http.StatusPermanentRedirect} {
		server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, status))
		t.Cleanup(server.Close)
		client, err := kapsel.New(server.URL, kapsel.WithAPIKey("kps_secret"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Events.GetEvent(t.Context(), new(kapselv1.GetEventRequest))
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "redirects to "+elsewhere.URL) {
			t.Errorf("a call after status %d: %v", status, err)
		}
		for _, err := range client.WatchEvents(t.Context(), nil, kapsel.Stream{}) {
			if connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("a stream after status %d: %v", status, err)
			}
		}
	}
}

// numbers is a stream of the numbers to 10 that breaks after each third message, once for each error.
type numbers struct {
	next, sent int
	err        func() error
}

func (n *numbers) Receive() (int, error) {
	if n.sent == 3 {
		if err := n.err(); err != nil {
			return 0, err
		}
	}
	if n.next == 10 {
		return 0, errEnd
	}
	n.next++
	n.sent++
	return n.next, nil
}

func (n *numbers) Close() error { return nil }

var errEnd = failure(connect.CodePermissionDenied)

func TestStreamsGoOnWhereTheyWereBrokenOff(t *testing.T) {
	var seen, opened []int
	last, interruptions := 0, 0
	options := kapsel.Stream{Retry: kapsel.Retry{InitialWait: 1, MaxWait: 2}, OnInterruption: func(error, time.Duration) { interruptions++ }}
	open := func(context.Context) (kapsel.Receiver[int], error) {
		opened = append(opened, last)
		if len(opened) == 2 {
			return nil, failure(connect.CodeUnavailable)
		}
		return &numbers{next: last, err: func() error { return failure(connect.CodeUnavailable) }}, nil
	}
	for n, err := range kapsel.Resume(t.Context(), options, false, open, func(n int) { last = n }) {
		if err != nil {
			if connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Error(err)
			}
			break
		}
		seen = append(seen, n)
	}
	if !slices.Equal(seen, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}) || !slices.Equal(opened, []int{0, 3, 3, 6, 9}) || interruptions != 4 {
		t.Errorf("saw %v, opened at %v, %d interruptions", seen, opened, interruptions)
	}
}

// A loop over what has an end cannot take a part for the whole.
func TestFiniteStreamThatIsCutShortSaysSo(t *testing.T) {
	for name, finite := range map[string]bool{"an export": true, "a watch": false} {
		ctx, cancel := context.WithCancel(t.Context())
		open := func(context.Context) (kapsel.Receiver[int], error) {
			return &numbers{err: func() error { return ctx.Err() }}, nil
		}
		var last error
		seen := 0
		for n, err := range kapsel.Resume(ctx, kapsel.Stream{}, finite, open, func(int) {}) {
			if last = err; err == nil {
				seen++
			}
			if n == 3 {
				cancel()
			}
		}
		cancel()
		if seen != 3 || errors.Is(last, context.Canceled) != finite {
			t.Errorf("%s: %d messages, and %v at the end", name, seen, last)
		}
	}
}

// Whoever imports the client gets the contract and well-known libraries, and no server.
func TestClientDependsOnTheContractAlone(t *testing.T) {
	output, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{end}}{{.ImportPath}} {{.Standard}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := map[string]bool{
		"connectrpc.com/connect/v2": true, "google.golang.org/protobuf": true,
		"google.golang.org/genproto/googleapis/api": true, "google.golang.org/genproto/googleapis/rpc": true,
		"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go": true, // options of the contract
		// of the verifier
		"github.com/transparency-dev/merkle": true, "golang.org/x/mod": true, "go.jetify.com/typeid": true,
	}
	for line := range strings.Lines(string(output)) {
		fields := strings.Fields(line)
		if fields[len(fields)-1] == "true" {
			continue
		}
		module, path := fields[0], fields[1]
		const ours = "github.com/kapsel-dev/kapsel"
		if modules[module] || module == ours && (strings.HasPrefix(path, ours+"/gen/") || path == ours+"/sdk/go" || path == ours+"/sdk/go/verify") {
			continue
		}
		t.Errorf("the client depends on %s of %s", path, module)
	}
}
