package server

import (
	"bufio"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Whatever the plain parser accepts, net/http reads in the same way.
func FuzzPlainHeadIsReadAsNetHTTPReadsIt(f *testing.F) {
	for _, seed := range []string{
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nhost: a:80\r\ncontent-length:2\r\nX-A:  v \r\nx-a: w\t\r\nConnection: Keep-Alive\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n folded: x\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n",
		"POST /ingest/ep_1 HTTP/1.1\nHost: a\nContent-Length: 2\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nX-A: a\x00b\r\nPragma: no-cache\r\n",
		"POST /ingest/../x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n",
		"POST /ingest/%65p HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n",
		"POST /ingest/ep_1?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n",
		"POST /ingest/ep_1 HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: \r\nHost: a\r\nContent-Length: 2\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n: x\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nX-A: a\nb: c\r\n",
		"POST /ingest/ep_1 HTTP/1.1\r\nHost:\na\r\nContent-Length: 2\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, head string) {
		if strings.Contains(head, "\r\n\r\n") || !strings.HasSuffix(head, "\r\n") {
			return // not what is between the start of a request and its empty line
		}
		got, plain := parsePlainHead(head)
		if !plain {
			return
		}
		want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n")))
		if err != nil {
			t.Fatalf("accepted, net/http says %v", err)
		}
		if want.Method != http.MethodPost || want.URL.Path != got.path || want.URL.RawQuery != "" || want.Host != got.host {
			t.Errorf("got %s at %s, want %s %s at %s", got.path, got.host, want.Method, want.URL, want.Host)
		}
		if want.ContentLength != int64(got.contentLength) || len(want.TransferEncoding) > 0 || want.Close {
			t.Errorf("got length %d, want %d, %v, close %t", got.contentLength, want.ContentLength, want.TransferEncoding, want.Close)
		}
		if !maps.EqualFunc(got.header, want.Header, slices.Equal[[]string]) {
			t.Errorf("got %q, want %q", got.header, want.Header)
		}
	})
}

func TestOnlyThePlainFormIsParsed(t *testing.T) {
	const rest = "Host: a\r\nContent-Length: 2\r\n"
	for name, head := range map[string]string{
		"plain":        "POST /ingest/ep_1 HTTP/1.1\r\n" + rest,
		"GET":          "GET /ingest/ep_1 HTTP/1.1\r\n" + rest,
		"another path": "POST /kapsel.v1.EventService/GetEvent HTTP/1.1\r\n" + rest,
		"two segments": "POST /ingest/ep_1/x HTTP/1.1\r\n" + rest,
		"no segment":   "POST /ingest/ HTTP/1.1\r\n" + rest,
		"query":        "POST /ingest/ep_1?validationToken=1 HTTP/1.1\r\n" + rest,
		"escape":       "POST /ingest/ep%5f1 HTTP/1.1\r\n" + rest,
		"HTTP/1.0":     "POST /ingest/ep_1 HTTP/1.0\r\n" + rest,
		"no host":      "POST /ingest/ep_1 HTTP/1.1\r\nContent-Length: 2\r\n",
		"no length":    "POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\n",
		"two lengths":  "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "Content-Length: 2\r\n",
		"signed":       "POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n",
		"list":         "POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n",
		"chunked":      "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "Transfer-Encoding: chunked\r\n",
		"expectation":  "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "Expect: 100-continue\r\n",
		"upgrade":      "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "Connection: Upgrade\r\nUpgrade: h2c\r\n",
		"close":        "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "Connection: close\r\n",
		"folded":       "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "X-A: a\r\n b\r\n",
		"bare LF":      "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "X-A: a\nX-B: b\r\n",
		"bare CR":      "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "X-A: a\rX-B: b\r\n",
		"space":        "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "X-A : a\r\n",
		"no colon":     "POST /ingest/ep_1 HTTP/1.1\r\n" + rest + "X-A\r\n",
	} {
		if _, plain := parsePlainHead(head); plain != (name == "plain") {
			t.Errorf("%s: plain is %t", name, plain)
		}
	}
}
