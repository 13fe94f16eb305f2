package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ingest"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

// answer is what /ingest said: the receipt's fields, or the problem's.
type answer struct {
	status      int
	header      http.Header
	EventID     string    `json:"event_id"`
	State       string    `json:"state"`
	Duplicate   bool      `json:"duplicate"`
	ReceivedAt  time.Time `json:"received_at"`
	Type        string    `json:"type"`
	Title       string    `json:"title"`
	Status      int       `json:"status"`
	Detail      string    `json:"detail"`
	Code        string    `json:"code"`
	Correlation string    `json:"correlation_id"`
}

func readAnswer(t *testing.T, response *http.Response) answer {
	t.Helper()
	defer response.Body.Close()
	a := answer{status: response.StatusCode, header: response.Header}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &a); err != nil && (a.status != http.StatusNoContent || len(body) > 0) {
		t.Fatalf("status %d with a body that is not JSON: %q", response.StatusCode, body)
	}
	return a
}

// wantProblem fails unless the answer is this problem, complete and of the right type.
func (a answer) wantProblem(t *testing.T, status int, code string) {
	t.Helper()
	if a.status != status || a.Code != code {
		t.Fatalf("got %d %q (%s), want %d %q", a.status, a.Code, a.Detail, status, code)
	}
	if a.Status != status || a.Title == "" || a.Detail == "" || a.Type != problemBase+code || a.Correlation == "" ||
		a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("incomplete problem: %+v", a)
	}
}

func (r *rig) post(url string, header http.Header, body io.Reader) answer {
	r.t.Helper()
	request := must(http.NewRequestWithContext(r.t.Context(), http.MethodPost, url, body))(r.t)
	for name, values := range header {
		request.Header[name] = values
	}
	return readAnswer(r.t, must(r.client.Do(request))(r.t))
}

func (r *rig) ingestURL(e *kapselv1.Endpoint) string { return r.url + ingestPath + e.Id }

var github = &kapselv1.Verification{Preset: signature.PresetGitHub}

func TestSignedWebhookGetsAReceiptAndIsStoredByteForByte(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, secret := r.endpoint(a, &kapselv1.Endpoint{Verification: github})
	body := []byte("\x00\xff not JSON, not UTF-8 \xc3\x28")
	header := must(signature.Sign(signature.Config{Preset: signature.PresetGitHub}, []byte(secret), body, time.Now(), "delivery-1"))(t)
	header["X-Odd"] = []string{"caf\xe9", "second"}
	header.Set("X-Github-Event", "push")
	header.Set("Content-Encoding", "gzip") // kept as a header; the bytes are never decoded

	first := r.post(r.ingestURL(e), header, bytes.NewReader(body))
	if first.status != http.StatusAccepted || first.State != "accepted" || first.Duplicate || time.Since(first.ReceivedAt) > time.Minute {
		t.Fatalf("got %+v, want an accepted receipt", first)
	}
	if got := first.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	second := r.post(r.ingestURL(e), header, bytes.NewReader(body))
	if second.status != http.StatusAccepted || !second.Duplicate || second.EventID != first.EventID {
		t.Fatalf("the same delivery again: got %+v, want a duplicate of %s", second, first.EventID)
	}

	event := r.event(a, first.EventID, kapselv1.EventState_EVENT_STATE_UNMATCHED)
	if event.EventType != "push" || event.DeduplicationKey != "delivery-1" || event.Verification != "github" || event.SourceAddress != "127.0.0.1" {
		t.Errorf("got event %v", event)
	}
	var raw []byte
	for _, h := range event.Headers {
		if h.Name == "X-Odd" && len(h.RawValue) > 0 {
			raw = h.RawValue
			if h.Value != "caf\uFFFD" {
				t.Errorf("value %q", h.Value)
			}
		}
	}
	if string(raw) != "caf\xe9" {
		t.Errorf("raw value %q is not what was sent", raw)
	}
	payload := must(a.events.GetPayload(t.Context(), &kapselv1.GetPayloadRequest{EventId: first.EventID}))(t)
	if !bytes.Equal(payload.Payload, body) {
		t.Errorf("payload %q, want %q", payload.Payload, body)
	}
}

func TestWebhooksThatAreRefused(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, secret := r.endpoint(a, &kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: signature.PresetStandardWebhooks}, MaxBodyBytes: 1000})
	disabled, _ := r.endpoint(a, &kapselv1.Endpoint{State: kapselv1.EndpointState_ENDPOINT_STATE_DISABLED})
	body := []byte(`{"type":"ping"}`)
	sign := func(secret string, at time.Time) http.Header {
		return must(signature.Sign(signature.Config{Preset: signature.PresetStandardWebhooks}, []byte(secret), body, at, "msg_1"))(t)
	}
	malformed := sign(secret, time.Now())
	malformed.Set("Webhook-Timestamp", "yesterday")
	bomb := make(http.Header)
	for i := range 300 {
		bomb.Set(fmt.Sprintf("X-Bomb-%d", i), "1")
	}
	long := make(http.Header)
	for i := range 9 {
		long.Set(fmt.Sprintf("X-Long-%d", i), strings.Repeat("x", 7500))
	}
	for name, test := range map[string]struct {
		path   string
		header http.Header
		body   io.Reader
		status int
		code   string
	}{
		"no signature":          {e.Id, nil, bytes.NewReader(body), 401, "signature_missing"},
		"malformed timestamp":   {e.Id, malformed, bytes.NewReader(body), 401, "signature_invalid"},
		"wrong secret":          {e.Id, sign(signature.NewSecret(), time.Now()), bytes.NewReader(body), 401, "signature_invalid"},
		"other body":            {e.Id, sign(secret, time.Now()), strings.NewReader("{}"), 401, "signature_invalid"},
		"stale":                 {e.Id, sign(secret, time.Now().Add(-time.Hour)), bytes.NewReader(body), 401, "timestamp_invalid"},
		"from the future":       {e.Id, sign(secret, time.Now().Add(time.Hour)), bytes.NewReader(body), 401, "timestamp_invalid"},
		"unknown endpoint":      {id.Endpoint.Text(id.New()), nil, bytes.NewReader(body), 404, "endpoint_not_found"},
		"malformed id":          {"ep_nonsense", nil, bytes.NewReader(body), 404, "endpoint_not_found"},
		"hostile id":            {"..%2f%00ep_", nil, bytes.NewReader(body), 404, "endpoint_not_found"},
		"no id":                 {"", nil, bytes.NewReader(body), 404, "endpoint_not_found"},
		"disabled":              {disabled.Id, nil, bytes.NewReader(body), 404, "endpoint_not_found"},
		"announced too large":   {e.Id, nil, bytes.NewReader(make([]byte, 1001)), 413, "payload_too_large"},
		"chunked and too large": {e.Id, nil, io.MultiReader(bytes.NewReader(make([]byte, 1001))), 413, "payload_too_large"},
		"endless":               {e.Id, nil, zeros{}, 413, "payload_too_large"},
		"too many headers":      {e.Id, bomb, bytes.NewReader(body), 431, "headers_too_large"},
		"too large headers":     {e.Id, long, bytes.NewReader(body), 431, "headers_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.post(r.url+ingestPath+test.path, test.header, test.body)
			got.wantProblem(t, test.status, test.code)
			if test.status == http.StatusRequestEntityTooLarge && !strings.Contains(got.Detail, "1000 bytes") {
				t.Errorf("detail %q does not name the bound", got.Detail)
			}
			if !r.logged.contains(got.Correlation) {
				t.Error("the correlation id is not in the log")
			}
		})
	}
	if list := must(a.events.ListEvents(t.Context(), &kapselv1.ListEventsRequest{}))(t); len(list.Events) != 0 {
		t.Errorf("%d events were stored of webhooks that were refused", len(list.Events))
	}
	if r.logged.contains(secret) {
		t.Error("the signing secret is in the log")
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBodyOfExactlyTheBoundIsTaken(t *testing.T) {
	r := newRig(t)
	e, _ := r.endpoint(r.tenant(), &kapselv1.Endpoint{MaxBodyBytes: 5000})
	for name, body := range map[string]io.Reader{
		"announced":   bytes.NewReader(make([]byte, 5000)),
		"unannounced": io.MultiReader(bytes.NewReader(make([]byte, 5000))),
		"empty":       http.NoBody,
		"trickled":    &trickle{left: 5000},
	} {
		if got := r.post(r.ingestURL(e), nil, body); got.status != http.StatusAccepted {
			t.Errorf("%s: got %d %s, want 202", name, got.status, got.Code)
		}
	}
}

// trickle gives a byte at a time.
type trickle struct{ left int }

func (r *trickle) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	r.left--
	p[0] = 'x'
	return 1, nil
}

func TestOtherMethodsAreRefused(t *testing.T) {
	r := newRig(t)
	e, _ := r.endpoint(r.tenant(), &kapselv1.Endpoint{})
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		request := must(http.NewRequestWithContext(t.Context(), method, r.ingestURL(e), nil))(t)
		got := readAnswer(t, must(r.client.Do(request))(t))
		got.wantProblem(t, http.StatusMethodNotAllowed, "invalid_request")
		if allow := got.header.Get("Allow"); allow != "POST" {
			t.Errorf("%s: Allow %q", method, allow)
		}
	}
}

func TestBrokenJSONIsStoredAndDeadLettered(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON})
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(http.StatusOK)})
	for _, body := range []string{`{"a":`, "", "{\"a\":\"\xff\x00\"}", `{} {}`} {
		got := r.post(r.ingestURL(e), nil, strings.NewReader(body))
		if got.status != http.StatusAccepted || got.State != "dead_lettered" {
			t.Fatalf("%q: got %d %q, want 202 dead_lettered", body, got.status, got.State)
		}
		event := r.event(a, got.EventID, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED)
		if !strings.Contains(event.Defect, "not JSON") {
			t.Errorf("%q: defect %q", body, event.Defect)
		}
		var proof *kapselv1.GetProofPackageResponse
		r.eventually(func() bool {
			var err error
			proof, err = a.attestation.GetProofPackage(t.Context(), &kapselv1.GetProofPackageRequest{
				Subject: &kapselv1.GetProofPackageRequest_EventId{EventId: got.EventID}, Wait: durationpb.New(10 * time.Second),
			})
			return err == nil
		}, func() string { return "the dead letter was not attested" })
		if len(proof.Packages) != 1 {
			t.Errorf("%q: %d proof packages, want that of the dead letter", body, len(proof.Packages))
		}
	}
}

func TestEndpointMadeOnAnotherNodeIsFoundAtOnce(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	r.endpoint(a, &kapselv1.Endpoint{})
	settings := must(readEndpoint(&kapselv1.Endpoint{}))(t)
	row := must(settings.row())(t)
	row.TenantID = a.id
	for range 3 { // the later ones while the table was read a moment ago
		row.EndpointID = id.New()
		must(r.db.CreateEndpoint(t.Context(), r.db.Engine(), row))(t) // this node's routes are not told
		var sources sync.WaitGroup
		for range 10 {
			sources.Go(func() {
				got := r.post(r.url+ingestPath+id.Endpoint.Text(row.EndpointID), nil, strings.NewReader("x"))
				if got.status != http.StatusAccepted {
					t.Errorf("got %d %s, want 202", got.status, got.Code)
				}
			})
		}
		sources.Wait()
	}
}

// The first destination of a new endpoint, made on another node, gets what comes right after it.
func TestFirstDestinationMadeOnAnotherNodeGetsTheNextWebhook(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	endpoint, _ := r.endpoint(a, &kapselv1.Endpoint{})
	elsewhere := r.deps
	elsewhere.Routes = route.NewTable(r.db, r.deps.Keyring, r.deps.Logger)
	other := httptest.NewServer(New(elsewhere))
	defer other.Close()
	if err := elsewhere.Routes.Refresh(t.Context()); err != nil { // it has the endpoint, and will not be told of more
		t.Fatal(err)
	}
	r.destination(a, &kapselv1.Destination{EndpointId: endpoint.Id, Url: r.sink(http.StatusOK)})
	got := r.post(other.URL+ingestPath+endpoint.Id, nil, strings.NewReader("x"))
	if got.status != http.StatusAccepted {
		t.Fatalf("got %d %s, want 202", got.status, got.Code)
	}
	r.event(a, got.EventID, kapselv1.EventState_EVENT_STATE_DELIVERED)
}

// Nobody knows whether a young endpoint is there: its source must come again, and must not be told that it is gone.
func TestYoungEndpointIsNotDeniedWhileTheDatabaseIsAway(t *testing.T) {
	r := newRig(t)
	proxy := pgtest.NewProxy(t, r.database)
	db := must(store.Open(t.Context(), proxy.URL))(t)
	defer db.Close()
	finder := &endpointFinder{routes: route.NewTable(db, r.deps.Keyring, r.deps.Logger)}
	proxy.Away.Store(true)
	proxy.Cut()
	for range 2 {
		if endpoint, err := finder.find(t.Context(), id.New(), anyTenant); endpoint != nil || err == nil || problemOf(t.Context(), err).status != http.StatusServiceUnavailable {
			t.Errorf("a young id: %v, %v, want 503", endpoint, err)
		}
	}
	old := uuid.MustParse("018f0000-0000-7000-8000-000000000000")
	if endpoint, err := finder.find(t.Context(), old, anyTenant); endpoint != nil || err != nil {
		t.Errorf("an old id: %v, %v, want none", endpoint, err)
	}
	proxy.Away.Store(false)
	if endpoint, err := finder.find(t.Context(), id.New(), anyTenant); endpoint != nil || err != nil {
		t.Errorf("a young id when the database is back: %v, %v, want none", endpoint, err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := finder.find(gone, id.New(), anyTenant); !errors.Is(err, context.Canceled) {
		t.Errorf("a source that went away: %v", err)
	}
}

// A configuration that cannot be used is the server's fault: whoever sends is to come again, and finds the endpoint when it is mended.
func TestSourcesOfABrokenEndpointAreAskedToComeAgain(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	set := func(verification string) {
		t.Helper()
		_, err := r.db.Engine().Exec(t.Context(), `update endpoints set verification = $1 where endpoint_id = $2`, verification, must(id.Endpoint.Parse(e.Id))(t))
		if err = errors.Join(err, r.deps.Routes.Refresh(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	set(`{"preset":"nobody"}`)
	got := r.post(r.url+ingestPath+e.Id, nil, strings.NewReader("{}"))
	got.wantProblem(t, http.StatusServiceUnavailable, "internal")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	_, err := a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte("{}")})
	wantReason(t, err, connect.CodeInternal, "INTERNAL")
	set(`{}`)
	if got := r.post(r.url+ingestPath+e.Id, nil, strings.NewReader("{}")); got.status != http.StatusAccepted {
		t.Errorf("mended: got %d %s, want 202", got.status, got.Code)
	}
}

func TestSlowBodyIsEnded(t *testing.T) {
	r := newRig(t)
	e, _ := r.endpoint(r.tenant(), &kapselv1.Endpoint{})
	handler := &ingestHandler{api: &api{Deps: r.deps, finder: &endpointFinder{routes: r.deps.Routes}, memory: &memory{max: 1 << 20}}, bodyTimeout: 100 * time.Millisecond}
	server := &http.Server{Handler: handler}
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	defer func() { server.Close(); serving.Wait() }()

	for name, head := range map[string]string{
		"announced": "Content-Length: 100\r\n\r\nabc",
		"chunked":   "Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
	} {
		conn := must(net.Dial("tcp", listener.Addr().String()))(t)
		fmt.Fprintf(conn, "POST /ingest/%s HTTP/1.1\r\nHost: kapsel\r\n%s", e.Id, head)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		response := must(http.ReadResponse(bufio.NewReader(conn), nil))(t)
		got := readAnswer(t, response)
		got.wantProblem(t, http.StatusRequestTimeout, "invalid_request")
		if !response.Close {
			t.Errorf("%s: the connection stays open", name)
		}
		conn.Close()
	}
	r.eventually(func() bool { return handler.api.memory.used.Load() == 0 }, func() string { return "memory is not given back" })
}

func TestTruncatedBodyIsNotTaken(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	for _, rest := range []string{"Content-Length: 100\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc"} {
		conn := must(net.Dial("tcp", strings.TrimPrefix(r.url, "http://")))(t)
		fmt.Fprintf(conn, "POST /ingest/%s HTTP/1.1\r\nHost: kapsel\r\n%s", e.Id, rest)
		conn.(*net.TCPConn).CloseWrite()
		got := readAnswer(t, must(http.ReadResponse(bufio.NewReader(conn), nil))(t))
		got.wantProblem(t, http.StatusBadRequest, "invalid_request")
		conn.Close()
	}
	if list := must(a.events.ListEvents(t.Context(), &kapselv1.ListEventsRequest{}))(t); len(list.Events) != 0 {
		t.Errorf("%d truncated webhooks were stored", len(list.Events))
	}
}

func TestWhatNetHTTPRefusesByItself(t *testing.T) {
	r := newRig(t)
	e, _ := r.endpoint(r.tenant(), &kapselv1.Endpoint{})
	for name, test := range map[string]struct {
		request string
		status  int
	}{
		"header bomb":     {"POST /ingest/" + e.Id + " HTTP/1.1\r\nHost: k\r\nX-A: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", 431},
		"bad header":      {"POST /ingest/" + e.Id + " HTTP/1.1\r\nHost: k\r\nX A: 1\r\n\r\n", 400},
		"two lengths":     {"POST /ingest/" + e.Id + " HTTP/1.1\r\nHost: k\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
		"not HTTP":        {"\x16\x03\x01\x00\xa5 TLS?\r\n\r\n", 400},
		"negative length": {"POST /ingest/" + e.Id + " HTTP/1.1\r\nHost: k\r\nContent-Length: -1\r\n\r\n", 400},
	} {
		conn := must(net.Dial("tcp", strings.TrimPrefix(r.url, "http://")))(t)
		io.WriteString(conn, test.request)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if response.StatusCode != test.status {
			t.Errorf("%s: status %d, want %d", name, response.StatusCode, test.status)
		}
		conn.Close()
	}
}

func TestNoMemoryForABodyIsOverload(t *testing.T) {
	r := newRig(t)
	e, _ := r.endpoint(r.tenant(), &kapselv1.Endpoint{})
	handler := &ingestHandler{api: &api{Deps: r.deps, finder: &endpointFinder{routes: r.deps.Routes}, memory: &memory{max: 6000}}, bodyTimeout: time.Second}
	server := &http.Server{Handler: handler}
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	defer func() { server.Close(); serving.Wait() }()
	url := "http://" + listener.Addr().String() + ingestPath + e.Id
	for name, body := range map[string]io.Reader{
		"announced":   bytes.NewReader(make([]byte, 7000)),
		"unannounced": io.MultiReader(bytes.NewReader(make([]byte, 7000))),
	} {
		got := r.post(url, nil, body)
		got.wantProblem(t, http.StatusServiceUnavailable, "overloaded")
		if got.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", name)
		}
	}
	if used := handler.api.memory.used.Load(); used != 0 {
		t.Errorf("%d bytes are not given back", used)
	}
}

func TestWhatIntakeGivesBack(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx    context.Context
		err    error
		status int // 0: the server's own error
	}{
		"overloaded":     {t.Context(), ingest.ErrOverloaded, http.StatusServiceUnavailable},
		"database away":  {t.Context(), fmt.Errorf("store event: %w", ingest.ErrUnavailable), http.StatusServiceUnavailable},
		"client away":    {gone, gone.Err(), statusClientClosed},
		"database error": {t.Context(), fmt.Errorf("store event: %w", ingest.ErrRejected), 0},
	} {
		p := problemOf(test.ctx, test.err)
		switch {
		case p == nil && test.status != 0, p != nil && p.status != test.status:
			t.Errorf("%s: got %+v, want status %d", name, p, test.status)
		case p != nil && p.status == http.StatusServiceUnavailable && p.retry < time.Second:
			t.Errorf("%s: Retry-After of %v", name, p.retry)
		}
	}
}

func TestInternalErrorShowsOnlyACorrelationID(t *testing.T) {
	logged := new(lockedBuffer)
	h := &ingestHandler{api: &api{Deps: Deps{Logger: slog.New(slog.NewTextHandler(logged, nil))}}}
	recorder := httptest.NewRecorder()
	h.fail(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ingest/x", nil), errors.New("relation secrets.events is on fire"))
	got := readAnswer(t, recorder.Result())
	got.wantProblem(t, http.StatusInternalServerError, "internal")
	if strings.Contains(recorder.Body.String(), "fire") {
		t.Errorf("internals leak: %s", recorder.Body)
	}
	if !logged.contains("on fire") || !logged.contains(got.Correlation) {
		t.Error("the error is not in the log under its correlation id")
	}
}
