package delivery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
)

const (
	// A response is read and hashed up to here; what is longer is cut off, and the connection closed.
	maxResponseBytes       = 64 << 10
	maxResponseHeaderBytes = 64 << 10
	// Kept of a response for people.
	maxExcerptBytes = 1 << 10

	idleConnTimeout = 90 * time.Second
	maxIdleConns    = 2048
)

// Sender makes attempts: one HTTP POST each, redirects not followed, every address checked after it was resolved.
type Sender struct {
	dialer    *dialer
	plain     *plainClient    // http
	secure    *http.Transport // https: HTTP/2 where the destination speaks it
	special   *transports     // https as a destination wants it
	tokens    *tokens
	end       context.CancelFunc // of requests for tokens
	userAgent string
}

type connectTimeoutKey struct{}

// NewSender makes a sender that refuses private, loopback, link-local and other special addresses, except those in
// allowed.
func NewSender(allowed []netip.Prefix, version string) *Sender {
	return NewProxiedSender(nil, allowed, version)
}

// NewProxiedSender makes a sender like NewSender's whose connections go through an HTTP proxy, by CONNECT. The proxy's URL
// is http or https, with credentials for it if it wants any. Nil: connections are direct.
func NewProxiedSender(proxy *url.URL, allowed []netip.Prefix, version string) *Sender {
	s := &Sender{dialer: &dialer{guard: NewGuard(allowed), proxy: proxy}, userAgent: "Kapsel/" + version}
	s.plain = newPlainClient(func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := withConnectTimeout(ctx)
		defer cancel()
		return s.dialer.dial(ctx, network, address)
	})
	s.secure = newTransport(s.dialer, nil)
	s.special = &transports{dialer: s.dialer, made: make(map[[sha256.Size]byte]*usedTransport)}
	ctx, cancel := context.WithCancel(context.Background())
	s.end = cancel
	s.tokens = &tokens{ctx: ctx, kept: make(map[[sha256.Size]byte]*keptToken), transport: s.transport}
	return s
}

// withConnectTimeout bounds the making of a connection by the destination's connect timeout. The transport carries the
// values of a request's context to the dialer, but not its deadline.
func withConnectTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout, _ := ctx.Value(connectTimeoutKey{}).(time.Duration)
	return context.WithTimeout(ctx, timeout)
}

// transport is what speaks https to the destination.
func (s *Sender) transport(d *route.Destination) http.RoundTripper {
	if d.ClientTLS != nil {
		return staying{s.special.of(d.ClientTLS)}
	}
	return staying{s.secure}
}

// handshake makes conn a TLS connection to the host of address. It closes conn when it fails.
func handshake(ctx context.Context, conn net.Conn, address string, base *tls.Config) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		conn.Close()
		return nil, err
	}
	config := base.Clone()
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	config.ServerName = host
	if config.NextProtos == nil {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// Close closes idle connections and ends requests for tokens.
func (s *Sender) Close() {
	s.end()
	s.plain.closeIdle(time.Now())
	s.secure.CloseIdleConnections()
	s.special.close()
}

// Send makes one attempt of a job. It always returns one: whatever happened is a result.
func (s *Sender) Send(ctx context.Context, job Job) *ledger.Attempt {
	destination := job.Destination
	attempt := &ledger.Attempt{ID: id.New(), URL: destination.URL, StartedAt: time.Now()}
	defer func() { attempt.Duration = time.Since(attempt.StartedAt) }()

	ctx = context.WithValue(ctx, connectTimeoutKey{}, destination.ConnectTimeout)
	ctx, cancel := context.WithTimeout(ctx, destination.Timeout)
	defer cancel()
	if destination.Broken != "" {
		fail(attempt, leafv1.Failure_FAILURE_CONFIGURATION, errors.New(destination.Broken))
		return attempt
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, destination.URL, bytes.NewReader(job.Event.Body))
	if err != nil {
		fail(attempt, leafv1.Failure_FAILURE_CONFIGURATION, err)
		return attempt
	}
	request.Header = s.headers(job, attempt)
	if destination.ClientCredentials != nil {
		authorization, err := s.tokens.header(ctx, destination)
		if err != nil {
			fail(attempt, classify(err), err)
			return attempt
		}
		request.Header["Authorization"] = []string{authorization}
	}
	attempt.RequestHeaders = hashHeaders(request.Header)

	roundTrip := s.plain.roundTrip
	if request.URL.Scheme != "http" {
		roundTrip = s.transport(destination).RoundTrip
	}
	response, err := roundTrip(request)
	if err != nil {
		fail(attempt, classify(err), err)
		return attempt
	}
	defer response.Body.Close()
	attempt.StatusCode = response.StatusCode
	if response.StatusCode == http.StatusUnauthorized && destination.ClientCredentials != nil {
		s.tokens.reject(destination, request.Header.Get("Authorization"))
	}
	attempt.Response, err = readResponse(response.Body, credentialsIn(request.Header, destination))
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		// The status is the answer (Standard Webhooks): a body that breaks off does not undo it.
		attempt.Outcome = leafv1.Outcome_OUTCOME_SUCCEEDED
		return attempt
	}
	attempt.Outcome = leafv1.Outcome_OUTCOME_FAILED
	attempt.Failure = leafv1.Failure_FAILURE_STATUS
	attempt.RetryAfter = retryAfter(response.StatusCode, response.Header, time.Now())
	attempt.Diagnosis = diagnoseStatus(response)
	if err != nil {
		attempt.Diagnosis += ", body broke off: " + err.Error()
	}
	return attempt
}

// headers are those of the request: original ones by policy, the destination's own, Standard Webhooks, the trace's
// and Kapsel's.
// A late retry is signed afresh, since a receiver's tolerance is minutes.
func (s *Sender) headers(job Job, attempt *ledger.Attempt) http.Header {
	event, destination, now := job.Event, job.Destination, attempt.StartedAt
	header := make(http.Header, 12+len(destination.Headers)+len(destination.Forwarded))
	if destination.ForwardAll || len(destination.Forwarded) > 0 {
		forward(header, event.Headers, destination)
	}
	describePayload(header, event)
	for name, values := range destination.Headers {
		header[name] = values
	}
	messageID := id.Event.Text(event.ID)
	trace := traceOf(event.ID, event.Headers)
	attempt.TraceID, attempt.SpanID = trace.id, randomSpan()
	// One array for all: each value would cost an allocation.
	values := []string{
		s.userAgent, messageID, strconv.FormatInt(now.Unix(), 10), destination.Signer.Sign(messageID, now, event.Body),
		strconv.Itoa(job.Attempts + 1), event.ReceivedAt.UTC().Format(time.RFC3339Nano), trace.traceparent(attempt.SpanID), trace.state,
	}
	names := destination.SignatureHeaders
	for i, name := range [...]string{"User-Agent", names.ID, names.Timestamp, names.Signature, "Kapsel-Attempt", "Kapsel-Received-At", "Traceparent", "Tracestate"} {
		header[name] = values[i : i+1 : i+1]
	}
	if trace.state == "" {
		delete(header, "Tracestate")
	}
	spellForOneTry(header)
	return header
}

// describePayload says what the payload is as its source did: without its encoding a compressed one could not be read. The type
// that is kept beside the event is for people, and may be cut.
func describePayload(header http.Header, event *ledger.Event) {
	if event.ContentType != "" {
		header["Content-Type"] = []string{event.ContentType}
		if exact := headerValues(event.Headers, "Content-Type: "); len(exact) > 0 {
			header["Content-Type"] = exact[:1]
		}
	}
	if encodings := headerValues(event.Headers, "Content-Encoding: "); len(encodings) > 0 {
		header["Content-Encoding"] = encodings
	}
}

// spellForOneTry spells the headers that make http.Transport send a POST again by itself, when a kept connection breaks,
// in a way that it does not see: each attempt is one request, and one leaf. Names have no case (RFC 9110 section 5.1).
func spellForOneTry(header http.Header) {
	for _, name := range [...]string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, found := header[name]; found {
			delete(header, name)
			header[strings.ToLower(name)] = values
		}
	}
}

// Headers of the webhook that "*" does not pass on: those of its connection (RFC 9110 section 7.6.1), its credentials,
// and those that the request sets itself.
var notForwarded = []string{"Authorization", "Connection", "Content-Length", "Cookie", "Expect", "Host", "Keep-Alive",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Webhook-Id", "Webhook-Signature", "Webhook-Timestamp", "Kapsel-Attempt", "Kapsel-Received-At", "Traceparent", "Tracestate"}

func forward(header http.Header, lines []byte, destination *route.Destination) {
	for line := range strings.SplitSeq(string(lines), "\r\n") {
		name, value, found := strings.Cut(line, ": ")
		if !found {
			continue
		}
		if slices.Contains(destination.Forwarded, name) || destination.ForwardAll && !slices.Contains(notForwarded, name) {
			header[name] = append(header[name], value)
		}
	}
}

// hashHeaders is the leaf's request_headers_sha256: "name: value\n" in lower case, sorted by name.
func hashHeaders(header http.Header) [sha256.Size]byte {
	type field struct {
		name   string
		values []string
	}
	fields := make([]field, 0, len(header))
	size := 0
	for name, values := range header {
		fields = append(fields, field{strings.ToLower(name), values})
		for _, value := range values {
			size += len(name) + len(value) + 3
		}
	}
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	lines := make([]byte, 0, size)
	for _, f := range fields {
		for _, value := range f.values {
			lines = append(lines, f.name...)
			lines = append(lines, ": "...)
			lines = append(lines, value...)
			lines = append(lines, '\n')
		}
	}
	return sha256.Sum256(lines)
}

func readResponse(body io.Reader, credentials []string) (*ledger.Response, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxResponseBytes+1))
	response := &ledger.Response{Truncated: len(data) > maxResponseBytes}
	data = data[:min(len(data), maxResponseBytes)]
	response.SHA256, response.Bytes = sha256.Sum256(data), int64(len(data))
	response.Excerpt = excerptOf(data, credentials)
	return response, err
}
