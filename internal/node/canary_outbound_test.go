package node

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/certtest"
)

// guarded is a destination that asks for all it can: a client certificate, an access token and a header. What it answers to
// deliveries that it refuses repeats what it was sent.
type guarded struct {
	ca, clients *certtest.Authority
	pair        certtest.Pair // to show to it
	url         string
	secret      string // of the client
	token       string // that its token endpoint gives
	header      string // value of X-Api-Key
	taken       atomic.Int64
}

func newGuarded(t *testing.T, mark string) *guarded {
	t.Helper()
	g := &guarded{ca: certtest.New(t), clients: certtest.New(t), secret: "client-" + mark, token: "token-" + mark, header: "header-" + mark}
	g.pair = g.clients.Issue(t, "kapsel.example.com")
	server := httptest.NewUnstartedServer(g)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{g.ca.Issue(t, "127.0.0.1").TLS}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: g.clients.Pool}
	server.StartTLS()
	t.Cleanup(server.Close)
	g.url = server.URL
	return g
}

func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	echo := func(status int) {
		w.Header().Set("X-Echo", r.Header.Get("Authorization")+" "+r.Header.Get("X-Api-Key"))
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]string{"error": fmt.Sprint(r.Header), "error_description": fmt.Sprint(r.Header)})
	}
	_, clientSecret, _ := r.BasicAuth()
	switch {
	case r.URL.Path == "/token" && clientSecret == g.secret:
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, g.token)
	case r.URL.Path == "/in" && r.Header.Get("Authorization") == "Bearer "+g.token && r.Header.Get("X-Api-Key") == g.header:
		g.taken.Add(1)
	default:
		echo(http.StatusUnauthorized)
	}
}

// destination is the request that makes it, delivered to under path, with a client secret.
func (g *guarded) destination(endpointID, path, clientSecret string) string {
	text, _ := json.Marshal(map[string]any{"destination": map[string]any{
		"endpointId": endpointID, "url": g.url + path, "retryPolicy": map[string]any{"maxAttempts": 1},
		"headers":           []map[string]string{{"name": "X-Api-Key", "value": g.header}},
		"clientTls":         map[string]string{"certificateChain": string(g.pair.Certificate), "privateKey": string(g.pair.Key), "trustedAuthorities": string(g.ca.PEM)},
		"clientCredentials": map[string]string{"tokenUrl": g.url + "/token", "clientId": "kapsel", "clientSecret": clientSecret},
	}})
	return string(text)
}

// canaries are what must show nowhere.
func (g *guarded) canaries() []string {
	return []string{g.secret, g.token, g.header, strings.Split(string(g.pair.Key), "\n")[1]}
}
