package server

import (
	"bufio"
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// A page token is opaque to clients: whatever they send, it is read or refused, and what is read is given again as it was.
func FuzzPageToken(f *testing.F) {
	for _, seed := range []string{"", "e30", "AAAA", "dst_01jzzzzzzzzzzzzzzzzzzzzzzz", strings.Repeat("A", 1024)} {
		f.Add(seed, int32(50))
	}
	f.Fuzz(func(t *testing.T, token string, size int32) {
		page, err := readPage(&kapselv1.ListDestinationsRequest{PageToken: token, PageSize: size})
		if err != nil || token == "" {
			return
		}
		again, err := readPage(&kapselv1.ListDestinationsRequest{PageToken: page.token(page.before), PageSize: size})
		if err != nil || again.before != page.before {
			t.Fatalf("%q is read as %s, and given again as %s (%v)", token, page.before, again.before, err)
		}
	})
}

// An update mask changes the fields that it names, or is refused.
func FuzzUpdateMask(f *testing.F) {
	for _, seed := range []string{"url", "filter.expression", "client_tls.private_key", "a.b.c", "", ".", "filter.event_types.x", "retry_policy.schedule"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		from := &kapselv1.Destination{Url: "https://new.example.com/", Filter: &kapselv1.Filter{Expression: "true"}}
		to := &kapselv1.Destination{Id: "kept", Url: "https://old.example.com/"}
		if applyMask(&fieldmaskpb.FieldMask{Paths: []string{path}}, from, to) == nil && to.Id != "kept" && path != "id" {
			t.Fatalf("%q changed another field", path)
		}
	})
}

// The credential of an Authorization header has no space around it, and is part of the header.
func FuzzBearer(f *testing.F) {
	for _, seed := range []string{"Bearer a", "bearer  a ", "Basic a", "Bearer", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if got := bearer(header); got != strings.TrimSpace(got) || !strings.Contains(header, got) {
			t.Fatalf("%q gives %q", header, got)
		}
	})
}

// Whatever comes on a connection, the server answers what it can or ends it, and what it takes for a webhook is one for
// net/http too: same path, same body.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiPOST /ingest/ep_2 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		seen := make(chan string, 64)
		quick := newQuickServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			select {
			case seen <- r.URL.Path + " " + string(body):
			default:
			}
		}), log.New(io.Discard, "", 0))
		client, served := net.Pipe()
		go func() {
			client.SetDeadline(time.Now().Add(time.Second))
			client.Write(sent)
			client.Close()
		}()
		go io.Copy(io.Discard, client)
		c := &quickConn{Conn: served, server: quick, template: newTemplate(served), buffer: make([]byte, quickBufferBytes)}
		c.serve()
		served.Close()
		close(seen)
		rest := bufio.NewReader(bytes.NewReader(sent))
		for got := range seen {
			request, err := http.ReadRequest(rest)
			if err != nil {
				t.Fatalf("%q was answered, and net/http reads no request: %v", got, err)
			}
			body, err := io.ReadAll(request.Body)
			if want := request.URL.Path + " " + string(body); err != nil || want != got {
				t.Fatalf("%q was answered, net/http reads %q (%v)", got, want, err)
			}
		}
	})
}
