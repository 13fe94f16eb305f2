package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpchealth"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
)

func (r *rig) get(path string) (int, string) {
	r.t.Helper()
	response := must(r.client.Get(r.url + path))(r.t)
	defer response.Body.Close()
	return response.StatusCode, string(must(io.ReadAll(response.Body))(r.t))
}

func TestLifeAndReadiness(t *testing.T) {
	r := newRig(t)
	if status, _ := r.get("/livez"); status != 200 {
		t.Errorf("/livez: %d", status)
	}
	if status, body := r.get("/readyz"); status != 200 || body != "ready\n" {
		t.Errorf("/readyz: %d %q", status, body)
	}
	health := grpchealth.NewClient(h2c(t), r.url, connectv1.WithGRPC())
	for service, want := range map[string]grpchealth.Status{"": grpchealth.StatusServing, "kapsel.v1.IngestService": grpchealth.StatusServing} {
		got := must(health.Check(t.Context(), &grpchealth.CheckRequest{Service: service}))(t)
		if got.Status != want {
			t.Errorf("health of %q: %v", service, got.Status)
		}
	}
	if _, err := health.Check(t.Context(), &grpchealth.CheckRequest{Service: "kapsel.v1.Nothing"}); connectv1.CodeOf(err) != connectv1.CodeNotFound {
		t.Errorf("health of an unknown service: %v", err)
	}

	deps := r.deps
	deps.Ready = func() error { return errors.New("password authentication failed for user kapsel") }
	recorder := recordGet(t, New(deps), "/readyz")
	if recorder.status != http.StatusServiceUnavailable || strings.Contains(recorder.body, "password") {
		t.Errorf("not ready: %d %q", recorder.status, recorder.body)
	}
	if status, _ := r.get("/nothing/here"); status != http.StatusNotFound {
		t.Errorf("unknown path: %d", status)
	}
}

// h2c is a client of HTTP/2 without TLS, as gRPC is.
func h2c(t *testing.T) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func TestEveryProtocolOnOnePort(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	authorize := func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if info, found := connect.CallInfoForClientContext(ctx); found {
				info.RequestHeader().Set("Authorization", "Bearer "+a.key)
			}
			return next(ctx, spec)
		}
	}
	for name, transport := range map[string]connect.Transport{
		"gRPC":         connecthttp.NewTransport(h2c(t), r.url, connecthttp.WithGRPC()),
		"gRPC-Web":     connecthttp.NewTransport(r.client, r.url, connecthttp.WithGRPCWeb()),
		"Connect JSON": connecthttp.NewTransport(r.client, r.url, connecthttp.WithProtoJSON()),
		"Connect GET":  connecthttp.NewTransport(r.client, r.url, connecthttp.WithHTTPGet()),
		"Connect, h2c": connecthttp.NewTransport(h2c(t), r.url),
	} {
		client := kapselv1connect.NewEndpointServiceClient(connect.NewClient(transport, authorize))
		got, err := client.GetEndpoint(t.Context(), &kapselv1.GetEndpointRequest{EndpointId: e.Id})
		if err != nil || got.Endpoint.GetId() != e.Id {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		_, err = client.GetEndpoint(t.Context(), &kapselv1.GetEndpointRequest{EndpointId: "ep_00000000000000000000000000"})
		wantReason(t, err, connect.CodeNotFound, "ENDPOINT_NOT_FOUND")
		_, err = client.GetEndpoint(t.Context(), &kapselv1.GetEndpointRequest{EndpointId: "nonsense"})
		invalid := wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
		if fields := detailOf[*errdetails.BadRequest](t, invalid).GetFieldViolations(); len(fields) != 1 || fields[0].Field != "endpoint_id" {
			t.Errorf("%s: fields %v", name, fields)
		}
	}

	request := must(http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/kapsel.v1.EndpointService/GetEndpoint",
		strings.NewReader(`{"endpointId": 12`)))(t)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "bearer "+a.key)
	response := must(r.client.Do(request))(t)
	body := must(io.ReadAll(response.Body))(t)
	response.Body.Close()
	if response.StatusCode != http.StatusBadRequest || !bytes.Contains(body, []byte("ErrorInfo")) {
		t.Errorf("broken JSON: %d %s", response.StatusCode, body)
	}
}

// What is refused before its body was read is answered, and its connection ends, also if the body never comes.
func TestBodyThatNeverComesHoldsNoConnection(t *testing.T) {
	r := newRig(t)
	server := NewHTTPServer(New(r.deps), nil, slog.NewLogLogger(r.deps.Logger.Handler(), slog.LevelDebug))
	server.http.Handler = awaitBodies(New(r.deps), 10*time.Millisecond)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		server.Close()
		<-served
	}()
	for request, want := range map[string]string{
		"POST /ingest/ep_00000000000000000000000000": "404",
		"PUT /ingest/ep_00000000000000000000000000":  "405",
		"GET /livez":          "200",
		"GET /log/1/tile/0/0": "404",
		"POST /kapsel.v1.EventService/GetEvent\nContent-Type: application/json": "401",
		"POST /nothing/here": "404",
	} {
		for _, length := range []string{"Content-Length: 2", "Transfer-Encoding: chunked"} {
			line, more, _ := strings.Cut(request, "\n")
			conn := must(net.Dial("tcp", listener.Addr().String()))(t)
			conn.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: a\r\n%s\r\n", line, length)
			if more != "" {
				fmt.Fprintf(conn, "%s\r\n", more)
			}
			fmt.Fprint(conn, "\r\n")
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+want) {
				t.Errorf("%s, %s: %q (%v), want %s and the end", request, length, answer, err, want)
			}
			conn.Close()
		}
	}
}

func TestWebhookOverHTTP2(t *testing.T) {
	r := newRig(t)
	e, _ := r.endpoint(r.tenant(), &kapselv1.Endpoint{MaxBodyBytes: 1000})
	client := h2c(t)
	for name, test := range map[string]struct {
		body   io.Reader
		status int
	}{
		"announced":   {bytes.NewReader(make([]byte, 1000)), 202},
		"unannounced": {iotest.OneByteReader(bytes.NewReader(make([]byte, 1000))), 202},
		"too large":   {io.MultiReader(bytes.NewReader(make([]byte, 1001))), 413},
	} {
		request := must(http.NewRequestWithContext(t.Context(), http.MethodPost, r.ingestURL(e), test.body))(t)
		got := readAnswer(t, must(client.Do(request))(t))
		if got.status != test.status {
			t.Errorf("%s: %d %s, want %d", name, got.status, got.Code, test.status)
		}
	}
}

func TestCallBodiesShareABoundedMemory(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{MaxBodyBytes: 5 << 20})
	small := &memory{max: 1 << 20, callTimeout: callTimeout}
	inner := New(r.deps)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	server := NewHTTPServer(small.bound(inner), nil, slog.NewLogLogger(r.deps.Logger.Handler(), slog.LevelDebug))
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(listener) }()
	defer func() { server.Close(); <-done }()

	narrow := *r
	narrow.url = "http://" + listener.Addr().String()
	b := narrow.account(a.id, a.key)
	_, err := b.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Payload: make([]byte, 2<<20)})
	overloaded := wantReason(t, err, connect.CodeUnavailable, "OVERLOADED")
	if detailOf[*errdetails.RetryInfo](t, overloaded).GetRetryDelay().AsDuration() <= 0 {
		t.Error("no RetryInfo")
	}
	if _, err := b.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Payload: make([]byte, 1<<19)}); err != nil {
		t.Error(err)
	}
	r.eventually(func() bool { return small.used.Load() == 0 }, func() string { return fmt.Sprintf("%d bytes are not given back", small.used.Load()) })
}

func TestMessagesAreBounded(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	_, err := a.endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{DisplayName: strings.Repeat("x", 5<<20)}})
	wantReason(t, err, connect.CodeResourceExhausted, "PAYLOAD_TOO_LARGE")
}

// recorded is an answer of a handler.
type recorded struct {
	status int
	body   string
}

func recordGet(t *testing.T, handler http.Handler, path string) recorded {
	t.Helper()
	w := newRecorder()
	handler.ServeHTTP(w, must(http.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))(t))
	return recorded{w.Code, w.Body.String()}
}
