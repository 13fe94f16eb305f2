package delivery

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/certtest"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
)

// secureSink is an https server with a certificate of ca. With clients it takes only those that show a certificate of them.
func secureSink(t *testing.T, ca, clients *certtest.Authority, handler http.HandlerFunc) string {
	t.Helper()
	sink := httptest.NewUnstartedServer(handler)
	sink.EnableHTTP2 = true
	sink.Config.ErrorLog = log.New(io.Discard, "", 0)
	sink.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "127.0.0.1").TLS}}
	if clients != nil {
		sink.TLS.ClientAuth, sink.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool
	}
	sink.StartTLS()
	t.Cleanup(sink.Close)
	return sink.URL
}

func loopbackSender(t *testing.T) *Sender {
	s := NewSender([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, "test")
	t.Cleanup(s.Close)
	return s
}

func clientTLS(t *testing.T, pair certtest.Pair, authorities []byte) *route.ClientTLS {
	t.Helper()
	client, _, err := route.NewClientTLS(pair.Certificate, pair.Key, authorities)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func sendTo(t *testing.T, s *Sender, d *route.Destination) *ledger.Attempt {
	t.Helper()
	return s.Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: d})
}

func TestClientCertificateIsShownToItsDestinationOnly(t *testing.T) {
	ca, clients := certtest.New(t), certtest.New(t)
	var shown atomic.Value
	url := secureSink(t, ca, clients, func(_ http.ResponseWriter, r *http.Request) {
		shown.Store(r.TLS.PeerCertificates[0].Subject.CommonName)
	})
	s := loopbackSender(t)
	with := func(client *route.ClientTLS) *route.Destination {
		d := newDestination(t, url)
		d.ClientTLS = client
		return d
	}
	for _, name := range []string{"a.example.com", "b.example.com", "a.example.com"} {
		if a := sendTo(t, s, with(clientTLS(t, clients.Issue(t, name), ca.PEM))); a.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED || shown.Load() != name {
			t.Errorf("%s: %v %s, shown %v", name, a.Failure, a.Diagnosis, shown.Load())
		}
	}
	bare := clientTLS(t, certtest.Pair{}, ca.PEM) // HTTP/2 hides that it was an alert
	for name, client := range map[string]*route.ClientTLS{
		"no certificate":              bare,
		"certificate of another":      clientTLS(t, certtest.New(t).Issue(t, "a.example.com"), ca.PEM),
		"other authorities":           clientTLS(t, clients.Issue(t, "a.example.com"), clients.PEM),
		"authorities of the system":   clientTLS(t, clients.Issue(t, "a.example.com"), nil),
		"nothing asked for (control)": nil,
	} {
		if a := sendTo(t, s, with(client)); a.Failure != leafv1.Failure_FAILURE_TLS && client != bare {
			t.Errorf("%s: %v %d %s, want TLS", name, a.Failure, a.StatusCode, a.Diagnosis)
		} else if a.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED {
			t.Errorf("%s: delivered", name)
		}
	}
}

// tokenServer gives tokens, a new one each time, and notes how it was asked.
type tokenServer struct {
	*testing.T
	url   string
	mu    sync.Mutex
	asked []url.Values
	users []string
	given int
	// answer overrides what is given.
	answer func(w http.ResponseWriter, n int)
	expiry int
}

func newTokenServer(t *testing.T, ca *certtest.Authority) *tokenServer {
	ts := &tokenServer{T: t, expiry: 3600}
	ts.url = secureSink(t, ca, nil, func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		user, password, _ := r.BasicAuth()
		ts.mu.Lock()
		ts.given++
		n := ts.given
		ts.asked, ts.users = append(ts.asked, r.PostForm), append(ts.users, user+":"+password)
		answer, expiry := ts.answer, ts.expiry
		ts.mu.Unlock()
		if answer != nil {
			answer(w, n)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprintf("token-%d", n), "token_type": "bearer", "expires_in": expiry})
	}) + "/token"
	return ts
}

func (ts *tokenServer) count() int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.given
}

const clientSecret = "client-s3cret"

func clientCredentials(t *testing.T, c *kapselv1.ClientCredentials) *route.ClientCredentials {
	t.Helper()
	c.ClientId = "kapsel"
	compiled, err := route.NewClientCredentials(c, secret.New([]byte(clientSecret)))
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// oauthRig is a destination that wants a token of a token server, all by TLS.
type oauthRig struct {
	tokens      *tokenServer
	sender      *Sender
	destination *route.Destination
	status      atomic.Int64
	mu          sync.Mutex
	arrived     []string // Authorization of each request
}

func newOAuthRig(t *testing.T, c *kapselv1.ClientCredentials) *oauthRig {
	r := &oauthRig{sender: loopbackSender(t)}
	ca := certtest.New(t)
	r.tokens = newTokenServer(t, ca)
	r.status.Store(200)
	url := secureSink(t, ca, nil, func(w http.ResponseWriter, request *http.Request) {
		r.mu.Lock()
		r.arrived = append(r.arrived, request.Header.Get("Authorization"))
		r.mu.Unlock()
		w.WriteHeader(int(r.status.Load()))
	})
	r.destination = newDestination(t, url)
	r.destination.ClientTLS = clientTLS(t, certtest.Pair{}, ca.PEM)
	c.TokenUrl = r.tokens.url
	r.destination.ClientCredentials = clientCredentials(t, c)
	return r
}

func TestDeliveriesBearOneKeptToken(t *testing.T) {
	r := newOAuthRig(t, &kapselv1.ClientCredentials{Scopes: []string{"hooks", "more"}, Audience: "https://api.example.com"})
	var sending sync.WaitGroup
	for range 20 {
		sending.Go(func() {
			if a := sendTo(t, r.sender, r.destination); a.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED {
				t.Errorf("attempt: %v %s", a.Failure, a.Diagnosis)
			}
		})
	}
	sending.Wait()
	if r.tokens.count() != 1 || len(r.arrived) != 20 {
		t.Fatalf("%d tokens for %d requests", r.tokens.count(), len(r.arrived))
	}
	for _, got := range r.arrived {
		if got != "Bearer token-1" {
			t.Fatalf("Authorization %q", got)
		}
	}
	asked := r.tokens.asked[0]
	if asked.Get("grant_type") != "client_credentials" || asked.Get("scope") != "hooks more" || asked.Get("audience") != "https://api.example.com" ||
		asked.Has("client_secret") || r.tokens.users[0] != "kapsel:"+clientSecret {
		t.Errorf("asked %v as %s", asked, r.tokens.users[0])
	}
}

func TestClientMayProveItselfInTheBody(t *testing.T) {
	r := newOAuthRig(t, &kapselv1.ClientCredentials{Authentication: kapselv1.ClientAuthentication_CLIENT_AUTHENTICATION_BODY})
	sendTo(t, r.sender, r.destination)
	if asked := r.tokens.asked[0]; asked.Get("client_secret") != clientSecret || asked.Get("client_id") != "kapsel" || r.tokens.users[0] != ":" {
		t.Errorf("asked %v as %s", asked, r.tokens.users[0])
	}
}

func TestTokenIsRenewedBeforeItsEndAndAfterARefusal(t *testing.T) {
	r := newOAuthRig(t, new(kapselv1.ClientCredentials))
	r.tokens.expiry = int(refreshBefore/time.Second) - 10 // soon enough to be renewed, late enough to be used
	for _, want := range []string{"Bearer token-1", "Bearer token-1"} {
		sendTo(t, r.sender, r.destination)
		if got := r.arrived[len(r.arrived)-1]; got != want {
			t.Errorf("bore %q, want %q", got, want)
		}
	}
	for deadline := time.Now().Add(15 * time.Second); r.tokens.count() < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the token was not renewed before its end")
		}
	}
	r.tokens.mu.Lock()
	r.tokens.expiry = 3600
	r.tokens.mu.Unlock()
	r.status.Store(401)
	if a := sendTo(t, r.sender, r.destination); a.Failure != leafv1.Failure_FAILURE_STATUS || a.StatusCode != 401 {
		t.Errorf("refused token: %v", a.Failure)
	}
	refused := r.arrived[len(r.arrived)-1]
	r.status.Store(200)
	if a := sendTo(t, r.sender, r.destination); a.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED || r.arrived[len(r.arrived)-1] == refused {
		t.Errorf("after a refusal: %v with %q again", a.Outcome, refused)
	}
}

// Without a token nothing is sent, the class says why, nothing secret is told, and a broken endpoint is not asked by each.
func TestWithoutATokenNothingIsSent(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, n int)
		says   string
	}{
		"refused": {func(w http.ResponseWriter, _ int) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"you sent %s"}`, clientSecret)
		}, `answered 401, "invalid_client"`},
		"broken": {func(w http.ResponseWriter, _ int) {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, clientSecret)
		}, "answered 500"},
		"redirect": {func(w http.ResponseWriter, _ int) {
			w.Header().Set("Location", "https://127.0.0.1:1/")
			w.WriteHeader(307)
		}, "redirects are not followed"},
		"no JSON": {func(w http.ResponseWriter, _ int) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, "hello "+clientSecret)
		}, "no access token"},
		"no token": {func(w http.ResponseWriter, _ int) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, "{}")
		}, "no access token"},
		"other type": {func(w http.ResponseWriter, _ int) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"x","token_type":"mac"}`)
		}, "want Bearer"},
		"no header": {func(w http.ResponseWriter, _ int) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"x\r\nEvil: y","token_type":"bearer"}`)
		}, "can be sent"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newOAuthRig(t, new(kapselv1.ClientCredentials))
			r.tokens.answer = test.answer
			for range 10 {
				a := sendTo(t, r.sender, r.destination)
				if a.Failure != leafv1.Failure_FAILURE_AUTHORIZATION || !strings.Contains(a.Diagnosis, test.says) || strings.Contains(a.Diagnosis, clientSecret) {
					t.Fatalf("%v %q, want AUTHORIZATION and %q", a.Failure, a.Diagnosis, test.says)
				}
			}
			if len(r.arrived) > 0 || r.tokens.count() > 3 {
				t.Errorf("%d requests were sent, the endpoint was asked %d times for 10", len(r.arrived), r.tokens.count())
			}
		})
	}
}

// The token endpoint is behind the same guard and the same proxy as destinations.
func TestTokenEndpointIsGuarded(t *testing.T) {
	r := newOAuthRig(t, new(kapselv1.ClientCredentials))
	guarded := NewSender(nil, "test")
	t.Cleanup(guarded.Close)
	if a := sendTo(t, guarded, r.destination); a.Failure != leafv1.Failure_FAILURE_BLOCKED_ADDRESS || r.tokens.count() > 0 {
		t.Errorf("%v %s, asked %d times", a.Failure, a.Diagnosis, r.tokens.count())
	}
	p := newProxy(t)
	through := proxied(t, p.url, netip.MustParsePrefix("127.0.0.1/32"))
	if a := sendTo(t, through, r.destination); a.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED {
		t.Fatalf("through the proxy: %v %s", a.Failure, a.Diagnosis)
	}
	at, _ := url.Parse(r.tokens.url)
	sink, _ := url.Parse(r.destination.URL)
	if len(p.asked) != 2 || p.asked[0] != at.Host || p.asked[1] != sink.Host {
		t.Errorf("the proxy was asked for %v, want %s and %s", p.asked, at.Host, sink.Host)
	}
	if a := sendTo(t, proxied(t, p.url), r.destination); a.Failure != leafv1.Failure_FAILURE_BLOCKED_ADDRESS {
		t.Errorf("guarded, through the proxy: %v %s", a.Failure, a.Diagnosis)
	}
}

func TestSilentTokenEndpointTakesNoLongerThanTheDestinationMay(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // never accepts: the handshake gets no answer
	d := newDestination(t, "https://127.0.0.1:1/")
	d.Timeout = 200 * time.Millisecond
	d.ClientCredentials = clientCredentials(t, &kapselv1.ClientCredentials{TokenUrl: "https://" + listener.Addr().String()})
	if a := sendTo(t, loopbackSender(t), d); a.Failure != leafv1.Failure_FAILURE_AUTHORIZATION || a.Duration > fetchTimeout/2 {
		t.Errorf("%v after %v: %s", a.Failure, a.Duration, a.Diagnosis)
	}
}
