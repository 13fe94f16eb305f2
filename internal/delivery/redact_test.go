package delivery

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/route"
)

func TestExcerptHoldsNoCredentialThatTheDestinationRepeats(t *testing.T) {
	const key = "static-canary-value"
	handler := func(prefix string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, prefix+r.Header.Get("X-Api-Key")+" "+r.Header.Get("Authorization")+" "+r.Header.Get("X-Env"))
		}
	}
	serve := func(handler http.HandlerFunc) string {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		return server.URL
	}
	s := loopbackSender(t)
	for url, want := range map[string]string{
		serve(handler("")): "[redacted] [redacted] prod",
		serve(handler(strings.Repeat("x", maxExcerptBytes-5))): strings.Repeat("x", maxExcerptBytes-5) + "[reda",
	} {
		d := newDestination(t, url)
		d.Headers = http.Header{"X-Api-Key": {key}, "Authorization": {"Bearer token-canary"}, "X-Env": {"prod"}}
		got := sendTo(t, s, d).Response
		if string(got.Excerpt) != want {
			t.Errorf("excerpt %q, want %q", got.Excerpt, want)
		}
	}
	if got := excerptOf([]byte("the canary-token alone"), credentialsIn(http.Header{"Authorization": {"Bearer canary-token"}}, &route.Destination{ClientCredentials: new(route.ClientCredentials)})); string(got) != "the [redacted] alone" {
		t.Errorf("without its scheme: %q", got)
	}
	plain := bytes.Repeat([]byte("y"), 2*maxExcerptBytes)
	if got := excerptOf(plain, credentialsIn(http.Header{}, new(route.Destination))); !bytes.Equal(got, plain[:maxExcerptBytes]) {
		t.Errorf("without credentials: %d bytes", len(got))
	}
}
