package delivery

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/certtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// received is what a sink got.
type received struct {
	header http.Header
	body   []byte
}

// send makes one attempt at a sink that answers 200, and returns both sides of it.
func send(t *testing.T, event *ledger.Event, change func(*route.Destination)) (*ledger.Attempt, received) {
	t.Helper()
	got := make(chan received, 1)
	sink := newSink(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read request: %v", err)
		}
		got <- received{r.Header, body}
	})
	destination := newDestination(t, sink.URL)
	if change != nil {
		change(destination)
	}
	attempt := newSender(t).Send(t.Context(), Job{Duty: ledger.Duty{Event: event, Attempts: 4}, Destination: destination})
	if attempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED {
		t.Fatalf("attempt: %+v", attempt)
	}
	return attempt, <-got
}

func TestBodyArrivesByteForByte(t *testing.T) {
	large := make([]byte, 1<<20)
	rand.Read(large)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, body := range map[string][]byte{"empty": {}, "every byte": all, "large": large, "spaces": []byte(" { \"a\" : 1.0 }\r\n\n")} {
		if _, got := send(t, newEvent(body), nil); !bytes.Equal(got.body, body) {
			t.Errorf("%s: %d bytes were sent, and other %d bytes arrived", name, len(body), len(got.body))
		}
	}
}

func TestReceiversLibraryVerifiesTheSignature(t *testing.T) {
	verifier, err := standardwebhooks.NewWebhook(signingSecret)
	if err != nil {
		t.Fatal(err)
	}
	event := newEvent([]byte(`{"type":"invoice.paid","data":{"id":7}}`))
	_, got := send(t, event, nil)
	if err := verifier.Verify(got.body, got.header); err != nil {
		t.Errorf("verify: %v", err)
	}
	if err := verifier.Verify(append(got.body, ' '), got.header); err == nil {
		t.Error("another body verifies too")
	}
	for name, want := range map[string]string{
		"Webhook-Id": id.Event.Text(event.ID), "Kapsel-Attempt": "5", "Content-Type": "application/json", "User-Agent": "Kapsel/test",
		"Kapsel-Received-At": event.ReceivedAt.UTC().Format(time.RFC3339Nano), "Accept-Encoding": "",
	} {
		if value := got.header.Get(name); value != want {
			t.Errorf("%s: got %q, want %q", name, value, want)
		}
	}
}

func TestHeadersArePassedOnByPolicy(t *testing.T) {
	const original = "Accept: */*\r\nAuthorization: Basic c2VjcmV0\r\nConnection: keep-alive\r\nContent-Length: 99999\r\n" +
		"Content-Type: text/plain\r\nCookie: session=secret\r\nExpect: 100-continue\r\nHost: elsewhere.example\r\nKapsel-Attempt: 77\r\n" +
		"Te: trailers\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\nUser-Agent: Source/1\r\nWebhook-Id: theirs\r\n" +
		"Webhook-Signature: v1,theirs\r\nWebhook-Timestamp: 1\r\nX-Multi: one\r\nX-Multi: two: 2\r\nX-Request-Id: abc\r\n"
	event := func() *ledger.Event {
		e := newEvent([]byte("{}"))
		e.Headers = []byte(original)
		return e
	}
	t.Run("none", func(t *testing.T) {
		_, got := send(t, event(), nil)
		for _, name := range []string{"Accept", "Authorization", "Cookie", "X-Multi", "X-Request-Id", "Upgrade", "Te"} {
			if got.header[name] != nil {
				t.Errorf("%s was passed on: %q", name, got.header[name])
			}
		}
	})
	t.Run("what the payload is", func(t *testing.T) {
		e, long := event(), "multipart/form-data; boundary="+strings.Repeat("b", 300)
		e.Headers = []byte("Content-Encoding: deflate\r\nContent-Encoding: gzip\r\nContent-Type: " + long + "\r\nX-Content-Encoding: br\r\n")
		e.ContentType = store.CleanText(long, 256) // as a retry reads it from the database
		_, got := send(t, e, nil)
		if !slices.Equal(got.header["Content-Encoding"], []string{"deflate", "gzip"}) || !slices.Equal(got.header["Content-Type"], []string{long}) {
			t.Errorf("got %v", got.header)
		}
	})
	t.Run("named", func(t *testing.T) {
		_, got := send(t, event(), func(d *route.Destination) {
			d.Forwarded = []string{"X-Multi", "Authorization", "Webhook-Id", "Webhook-Signature", "User-Agent", "Kapsel-Attempt"}
		})
		if !slices.Equal(got.header["X-Multi"], []string{"one", "two: 2"}) || got.header.Get("Authorization") != "Basic c2VjcmV0" {
			t.Errorf("named headers did not arrive: %v", got.header)
		}
		if got.header["X-Request-Id"] != nil || got.header["Cookie"] != nil {
			t.Errorf("others were passed on: %v", got.header)
		}
		if id := got.header["Webhook-Id"]; len(id) != 1 || !strings.HasPrefix(id[0], "evt_") || got.header.Get("Kapsel-Attempt") != "5" ||
			len(got.header["Webhook-Signature"]) != 1 || got.header.Get("User-Agent") != "Kapsel/test" {
			t.Errorf("Kapsel's own headers were replaced: %v", got.header)
		}
	})
	t.Run("all", func(t *testing.T) {
		_, got := send(t, event(), func(d *route.Destination) {
			d.ForwardAll, d.Headers = true, http.Header{"X-Request-Id": {"static"}, "X-Team": {"a", "b"}}
		})
		for _, name := range []string{"Authorization", "Connection", "Cookie", "Expect", "Te", "Transfer-Encoding", "Upgrade"} {
			if got.header[name] != nil {
				t.Errorf("%s was passed on: %q", name, got.header[name])
			}
		}
		if got.header.Get("Accept") != "*/*" || !slices.Equal(got.header["X-Multi"], []string{"one", "two: 2"}) || got.header.Get("Content-Length") != "2" {
			t.Errorf("the original headers did not arrive: %v", got.header)
		}
		if !slices.Equal(got.header["X-Request-Id"], []string{"static"}) || !slices.Equal(got.header["X-Team"], []string{"a", "b"}) {
			t.Errorf("the destination's own headers did not win: %v", got.header)
		}
	})
}

// The leaf says which headers were sent: a receiver that kept them can show it.
func TestHeaderHashIsThatOfTheHeadersThatArrived(t *testing.T) {
	event := newEvent([]byte(`{"a":1}`))
	event.Headers = []byte("Idempotency-Key: k-1\r\nX-Multi: b\r\nX-Multi: a\r\nX-_odd: 1\r\nX-Zeta: 2\r\n")
	attempt, got := send(t, event, func(d *route.Destination) { d.ForwardAll, d.Headers = true, http.Header{"X-Abc": {"3"}} })
	var lines []string
	for name, values := range got.header {
		if name == "Content-Length" || name == "Accept-Encoding" {
			continue // added by the transport
		}
		// Lines of one name keep their order: the key of the sort is the name alone.
		line := ""
		for _, value := range values {
			line += strings.ToLower(name) + ": " + value + "\n"
		}
		lines = append(lines, line)
	}
	slices.SortFunc(lines, func(a, b string) int {
		nameA, _, _ := strings.Cut(a, ": ")
		nameB, _, _ := strings.Cut(b, ": ")
		return strings.Compare(nameA, nameB)
	})
	if want := sha256.Sum256([]byte(strings.Join(lines, ""))); attempt.RequestHeaders != want {
		t.Errorf("the hash does not match the lines that arrived:\n%s", strings.Join(lines, ""))
	}
}

// An attempt is one request, whatever the headers say about repeating it: a second one would have no leaf.
func TestNothingIsSentTwiceInOneAttempt(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		for _, header := range []string{"Idempotency-Key", "X-Idempotency-Key", "X-Other"} {
			for _, body := range []string{"", "{}"} {
				t.Run(fmt.Sprintf("%s, %s, %d bytes", scheme, header, len(body)), func(t *testing.T) {
					var requests atomic.Int64
					sink := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						io.Copy(io.Discard, r.Body)
						if r.Header.Get(header) != "1" {
							t.Errorf("%s did not arrive", header)
						}
						if requests.Add(1) > 1 { // on the connection that was kept from the first request
							if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
								conn.Close()
							}
						}
					}))
					t.Cleanup(sink.Close)
					sender := newSender(t)
					if scheme == "https" {
						sink.StartTLS()
						sender.secure.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
						sender.secure.TLSClientConfig.RootCAs.AddCert(sink.Certificate())
					} else {
						sink.Start()
					}
					event := newEvent([]byte(body))
					event.Headers = []byte(header + ": 1\r\n")
					destination := newDestination(t, sink.URL)
					destination.ForwardAll = true
					for try := range 2 {
						attempt := sender.Send(t.Context(), Job{Duty: ledger.Duty{Event: event}, Destination: destination})
						if succeeded := attempt.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED; succeeded != (try == 0) {
							t.Errorf("attempt %d: %+v", try+1, attempt)
						}
					}
					if n := requests.Load(); n != 2 {
						t.Errorf("2 attempts made %d requests", n)
					}
				})
			}
		}
	}
}

// raw is a TCP server that answers each connection by itself.
func raw(t *testing.T, answer func(conn *net.TCPConn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				answer(conn.(*net.TCPConn))
			}()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return "http://" + listener.Addr().String()
}

// readRequest reads a request and leaves the connection to the caller.
func readRequest(conn net.Conn) {
	buffer := make([]byte, 64<<10)
	conn.Read(buffer)
}

func answering(text string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		readRequest(conn)
		io.WriteString(conn, text)
	}
}

func TestFailuresAreToldApart(t *testing.T) {
	tlsSink := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	tlsSink.Config.ErrorLog = nil
	t.Cleanup(tlsSink.Close)
	plain := newSink(t, func(http.ResponseWriter, *http.Request) {})
	silent := newSink(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // only then the server sees that the client has gone
		<-r.Context().Done()
	})
	refused := httptest.NewServer(http.NotFoundHandler())
	refused.Close()
	mute := raw(t, func(conn *net.TCPConn) { io.Copy(io.Discard, conn) })

	for _, test := range []struct {
		name, url string
		change    func(*route.Destination)
		want      leafv1.Failure
		status    int
		diagnosis string // part of it
	}{
		{name: "connection refused", url: refused.URL, want: leafv1.Failure_FAILURE_CONNECT, diagnosis: "refused"},
		{name: "name that does not exist", url: "http://nothing.invalid/", want: leafv1.Failure_FAILURE_DNS, diagnosis: "nothing.invalid"},
		{name: "certificate of an unknown authority", url: tlsSink.URL, want: leafv1.Failure_FAILURE_TLS, diagnosis: "certificate"},
		{name: "no TLS at all", url: strings.Replace(plain.URL, "http:", "https:", 1), want: leafv1.Failure_FAILURE_TLS},
		{name: "no answer", url: silent.URL, change: func(d *route.Destination) { d.Timeout = 200 * time.Millisecond },
			want: leafv1.Failure_FAILURE_TIMEOUT, diagnosis: "timeout"},
		{name: "no TLS handshake within the connect timeout", url: strings.Replace(mute, "http:", "https:", 1),
			change: func(d *route.Destination) { d.ConnectTimeout = 200 * time.Millisecond }, want: leafv1.Failure_FAILURE_TIMEOUT},
		{name: "closed without an answer", url: raw(t, func(conn *net.TCPConn) { readRequest(conn) }), want: leafv1.Failure_FAILURE_PROTOCOL},
		{name: "reset without an answer", url: raw(t, func(conn *net.TCPConn) { readRequest(conn); conn.SetLinger(0) }), want: leafv1.Failure_FAILURE_PROTOCOL},
		{name: "closed in the header", url: raw(t, answering("HTTP/1.1 200 OK\r\nContent-Le")), want: leafv1.Failure_FAILURE_PROTOCOL},
		{name: "another protocol", url: raw(t, answering("SSH-2.0-OpenSSH_9.6\r\n")), want: leafv1.Failure_FAILURE_PROTOCOL},
		{name: "not a number", url: raw(t, answering("HTTP/1.1 two OK\r\n\r\n")), want: leafv1.Failure_FAILURE_PROTOCOL},
		{name: "header without end", url: raw(t, func(conn *net.TCPConn) {
			readRequest(conn)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for err := error(nil); err == nil; {
				_, err = io.WriteString(conn, "X-Bomb: "+strings.Repeat("b", 1000)+"\r\n")
			}
		}), want: leafv1.Failure_FAILURE_PROTOCOL, diagnosis: "header"},
		{name: "header line without end", url: raw(t, func(conn *net.TCPConn) {
			readRequest(conn)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-Bomb: ")
			for err := error(nil); err == nil; {
				_, err = io.WriteString(conn, strings.Repeat("b", 1000))
			}
		}), want: leafv1.Failure_FAILURE_PROTOCOL, diagnosis: "header"},
		{name: "interim answers without end", url: raw(t, func(conn *net.TCPConn) {
			readRequest(conn)
			for err := error(nil); err == nil; {
				_, err = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
			}
		}), want: leafv1.Failure_FAILURE_PROTOCOL},
		{name: "server error", url: raw(t, answering("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate")),
			want: leafv1.Failure_FAILURE_STATUS, status: 503, diagnosis: "503"},
		{name: "server error that breaks off", url: raw(t, answering("HTTP/1.1 500 No\r\nContent-Length: 400\r\n\r\nlate")),
			want: leafv1.Failure_FAILURE_STATUS, status: 500, diagnosis: "broke off"},
		{name: "switching protocols", url: raw(t, answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")),
			want: leafv1.Failure_FAILURE_STATUS, status: 101},
		{name: "status 999", url: raw(t, answering("HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n")), want: leafv1.Failure_FAILURE_STATUS, status: 999},
	} {
		t.Run(test.name, func(t *testing.T) {
			destination := newDestination(t, test.url)
			if test.change != nil {
				test.change(destination)
			}
			began := time.Now()
			attempt := newSender(t).Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: destination})
			if attempt.Outcome != leafv1.Outcome_OUTCOME_FAILED || attempt.Failure != test.want || attempt.StatusCode != test.status {
				t.Errorf("got %v, %v, status %d (%s): want %v, status %d", attempt.Outcome, attempt.Failure, attempt.StatusCode,
					attempt.Diagnosis, test.want, test.status)
			}
			if attempt.Diagnosis == "" || !strings.Contains(attempt.Diagnosis, test.diagnosis) {
				t.Errorf("diagnosis %q does not say %q", attempt.Diagnosis, test.diagnosis)
			}
			if took := time.Since(began); took > 8*time.Second || attempt.Duration > took || attempt.Duration <= 0 {
				t.Errorf("took %v, said %v", took, attempt.Duration)
			}
			if (attempt.Response != nil) != (test.status != 0) {
				t.Errorf("response: %+v", attempt.Response)
			}
		})
	}
}

func TestPrivateAddressesAreNotConnectedTo(t *testing.T) {
	var connections atomic.Int64
	local := newSink(t, func(http.ResponseWriter, *http.Request) { connections.Add(1) })
	_, port, err := net.SplitHostPort(local.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	sender := NewSender(nil, "test")
	t.Cleanup(sender.Close)
	for _, host := range []string{"127.0.0.1:" + port, "127.9.9.9:" + port, "localhost:" + port, "[::1]:" + port, "[::ffff:127.0.0.1]:" + port,
		"0.0.0.0:" + port, "[::]:" + port, "169.254.169.254", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "[fe80::1]", "10.0.0.1", "172.16.0.1", "192.168.1.1",
		"100.64.0.1", "224.0.0.1", "255.255.255.255", "[64:ff9b::7f00:1]"} {
		for _, scheme := range []string{"http://", "https://"} {
			attempt := sender.Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: newDestination(t, scheme+host+"/")})
			if attempt.Failure != leafv1.Failure_FAILURE_BLOCKED_ADDRESS {
				t.Errorf("%s%s: got %v (%s)", scheme, host, attempt.Failure, attempt.Diagnosis)
			}
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("the server on loopback saw %d requests", n)
	}
	// What is allowed is just what was allowed.
	metadata := newSender(t).Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: newDestination(t, "http://169.254.169.254/")})
	if metadata.Failure != leafv1.Failure_FAILURE_BLOCKED_ADDRESS {
		t.Errorf("metadata address with loopback allowed: got %v (%s)", metadata.Failure, metadata.Diagnosis)
	}
}

// What a destination answers may repeat the payload. It is in the attempt, which an erasure takes; a destination's health and
// its events outlive that.
func TestHealthRepeatsNothingThatADestinationSaid(t *testing.T) {
	const payload = "4111111111111111"
	quoted := 0
	for _, answer := range []string{
		"HTTP/1.1 302 Found\r\nLocation: https://shop.example.com/?card=" + payload + "\r\nContent-Length: 0\r\n\r\n",
		payload + " is not HTTP\r\n\r\n",
		"HTTP/1.1 " + payload + " OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\n" + payload + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: " + payload + "x\r\n\r\n",
		"HTTP/1.1 500 " + payload + "\r\nTransfer-Encoding: chunked\r\n\r\n" + payload + "zz\r\n",
		"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: " + payload + "\r\n\r\n",
	} {
		attempt := newSender(t).Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte(payload))}, Destination: newDestination(t, raw(t, answering(answer)))})
		if strings.Contains(attempt.Diagnosis, payload) {
			quoted++
		}
		if own := ownWords(attempt); own == "" || strings.Contains(own, payload) {
			t.Errorf("of %q it keeps %q", answer, own)
		}
	}
	if quoted == 0 {
		t.Error("no attempt's diagnosis quotes an answer: what is tested here cannot happen any more")
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var followed atomic.Int64
	target := newSink(t, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		sink := newSink(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target.URL, status) })
		attempt := newSender(t).Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: newDestination(t, sink.URL)})
		if attempt.Outcome != leafv1.Outcome_OUTCOME_FAILED || attempt.StatusCode != status {
			t.Errorf("status %d: got %v, status %d", status, attempt.Outcome, attempt.StatusCode)
		}
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

func TestEverySuccessfulStatusDelivers(t *testing.T) {
	for _, status := range []int{200, 201, 202, 204, 206, 299} {
		sink := newSink(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		attempt := newSender(t).Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: newDestination(t, sink.URL)})
		if attempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED || attempt.StatusCode != status || attempt.Failure != 0 {
			t.Errorf("status %d: %+v", status, attempt)
		}
	}
}

func TestResponseIsReadUpToItsBound(t *testing.T) {
	compressed := new(bytes.Buffer)
	zip := gzip.NewWriter(compressed)
	zip.Write(bytes.Repeat([]byte("0"), 1<<20))
	zip.Close()
	exact := bytes.Repeat([]byte("e"), maxResponseBytes)
	for _, test := range []struct {
		name      string
		answer    http.HandlerFunc
		want      []byte
		truncated bool
	}{
		{"empty", func(http.ResponseWriter, *http.Request) {}, nil, false},
		{"short", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "thanks") }, []byte("thanks"), false},
		{"just the bound", func(w http.ResponseWriter, _ *http.Request) { w.Write(exact) }, exact, false},
		{"one byte more", func(w http.ResponseWriter, _ *http.Request) { w.Write(append(bytes.Clone(exact), 'x')) }, exact, true},
		{"without end", func(w http.ResponseWriter, _ *http.Request) {
			for err := error(nil); err == nil; {
				_, err = w.Write(exact)
			}
		}, exact, true},
		{"compressed, hashed as it came", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(compressed.Bytes())
		}, compressed.Bytes(), false},
		{"in the smallest pieces", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat("1\r\ne\r\n", len(exact))+"0\r\n\r\n")
		}, exact, false},
		{"broken off after a success", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, []byte("half"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			sink := newSink(t, test.answer)
			attempt := newSender(t).Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: newDestination(t, sink.URL)})
			if attempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED || attempt.Response == nil {
				t.Fatalf("attempt: %+v", attempt)
			}
			response := attempt.Response
			if response.Bytes != int64(len(test.want)) || response.SHA256 != sha256.Sum256(test.want) || response.Truncated != test.truncated {
				t.Errorf("got %d bytes, truncated %v: want %d, %v, and their hash", response.Bytes, response.Truncated, len(test.want), test.truncated)
			}
			if len(response.Excerpt) > maxExcerptBytes || !bytes.HasPrefix(test.want, response.Excerpt) {
				t.Errorf("excerpt of %d bytes", len(response.Excerpt))
			}
		})
	}
}

// A body that trickles in for ever does not hold an attempt longer than its timeout.
func TestSlowBodyEndsWithTheTimeout(t *testing.T) {
	sink := newSink(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
		for r.Context().Err() == nil {
			io.WriteString(w, ".")
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	})
	destination := newDestination(t, sink.URL)
	destination.Timeout = 300 * time.Millisecond
	attempt := newSender(t).Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: destination})
	if attempt.Failure != leafv1.Failure_FAILURE_STATUS || attempt.StatusCode != 503 || attempt.Duration > 5*time.Second {
		t.Errorf("attempt: %+v", attempt)
	}
}

// net/http hands a connection over on which another protocol is to be spoken, with no deadline any more.
func TestAttemptEndsWithTheHTTPOfItsConnection(t *testing.T) {
	sink := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "x")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { conn.Close() })
	}))
	t.Cleanup(sink.Close)
	for name, want := range map[string]leafv1.Failure{
		"destination": leafv1.Failure_FAILURE_STATUS, "token endpoint": leafv1.Failure_FAILURE_AUTHORIZATION,
	} {
		t.Run(name, func(t *testing.T) {
			destination := newDestination(t, sink.URL)
			destination.Timeout = fetchTimeout
			destination.ClientTLS = clientTLS(t, certtest.Pair{}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sink.Certificate().Raw}))
			if name == "token endpoint" {
				destination.ClientCredentials = clientCredentials(t, &kapselv1.ClientCredentials{TokenUrl: sink.URL})
			}
			sender, ended := newSender(t), make(chan *ledger.Attempt, 1)
			go func() {
				ended <- sender.Send(context.Background(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: destination})
			}()
			select {
			case a := <-ended:
				if a.Failure != want || !strings.Contains(a.Diagnosis, "101") {
					t.Errorf("attempt: %+v", a)
				}
			case <-time.After(patience):
				t.Fatal("the attempt does not end")
			}
		})
	}
}

// Over TLS, with and without HTTP/2, the same bytes and headers arrive, and the connection is used again.
func TestDeliversOverTLS(t *testing.T) {
	for _, protocol := range []string{"HTTP/2.0", "HTTP/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			var connections atomic.Int64
			got := make(chan received, 2)
			protocols := make(chan string, 2)
			sink := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				protocols <- r.Proto
				got <- received{r.Header, body}
			}))
			sink.EnableHTTP2 = protocol == "HTTP/2.0"
			sink.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			sink.StartTLS()
			t.Cleanup(sink.Close)
			sender := newSender(t)
			roots := x509.NewCertPool()
			roots.AddCert(sink.Certificate())
			sender.secure.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
			verifier, err := standardwebhooks.NewWebhook(signingSecret)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				attempt := sender.Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: newDestination(t, sink.URL)})
				if attempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED {
					t.Fatalf("attempt: %+v", attempt)
				}
				if used := <-protocols; used != protocol {
					t.Errorf("sent by %s", used)
				}
				if r := <-got; verifier.Verify(r.body, r.header) != nil || string(r.body) != "{}" {
					t.Errorf("what arrived does not verify: %v", r)
				}
			}
			if n := connections.Load(); n != 1 {
				t.Errorf("2 attempts took %d connections", n)
			}
		})
	}
}
