package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/spf13/pflag"

	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// client speaks to a server in the name of a tenant.
type client struct {
	endpoints    kapselv1connect.EndpointServiceClient
	destinations kapselv1connect.DestinationServiceClient
	events       kapselv1connect.EventServiceClient
	deliveries   kapselv1connect.DeliveryServiceClient
	attestation  kapselv1connect.AttestationServiceClient
	tenants      kapselv1connect.TenantServiceClient
	listen       kapselv1connect.ListenServiceClient
	// raw calls any rpc.
	raw *connect.Client
}

// answerTimeout is longer than the server takes for anything, and bounds the wait for one that says nothing.
var answerTimeout = 2 * time.Minute

func newClient(url, apiKey string) client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerTimeout
	c := connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: bearer{apiKey, transport}, CheckRedirect: noRedirect}, url))
	return client{
		endpoints:    kapselv1connect.NewEndpointServiceClient(c),
		destinations: kapselv1connect.NewDestinationServiceClient(c),
		events:       kapselv1connect.NewEventServiceClient(c),
		deliveries:   kapselv1connect.NewDeliveryServiceClient(c),
		attestation:  kapselv1connect.NewAttestationServiceClient(c),
		tenants:      kapselv1connect.NewTenantServiceClient(c),
		listen:       kapselv1connect.NewListenServiceClient(c),
		raw:          c,
	}
}

// bearer adds an API key to each request.
type bearer struct {
	apiKey    string
	transport http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.apiKey)
	return b.transport.RoundTrip(r)
}

// noRedirect has requests fail that are redirected: their key or signature is for one server, and most redirects would make a GET of them.
func noRedirect(r *http.Request, _ []*http.Request) error {
	return usageError(fmt.Errorf("the server redirects to %s: give the address that it is served at", printable(r.URL.Redacted())))
}

// clientFlags say which server to speak to. Without them it is that of the current profile, else that of `kapsel dev`.
type clientFlags struct {
	url, apiKey, dataDir, profile string
}

func (f *clientFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "url", "", "address of the server (default that of the profile, else of kapsel dev)")
	flags.StringVar(&f.apiKey, "api-key", "", "API key; better in KAPSEL_API_KEY or a profile (default that of the profile, else of kapsel dev)")
	flags.StringVar(&f.profile, "profile", "", "profile to take server and key from (default the current one): see kapsel profiles")
	flags.StringVar(&f.dataDir, "data-dir", "", "data directory of kapsel dev, if not the usual one")
}

// demo is the server that the flags name, the rest filled in from a profile or the data directory of kapsel dev.
func (f *clientFlags) demo() (demo, error) {
	if err := checkURL("--url", f.url); err != nil {
		return demo{}, err
	}
	if err := checkKey(f.apiKey); err != nil {
		return demo{}, err
	}
	if f.url != "" && f.apiKey != "" {
		return demo{URL: f.url, APIKey: f.apiKey}, nil
	}
	all, err := readProfiles()
	if err != nil {
		return demo{}, err
	}
	chosen, err := all.chosen(f.profile)
	if err != nil {
		return demo{}, err
	}
	// A key goes only to the server that it was remembered for.
	if chosen != nil && (f.profile != "" || f.dataDir == "") && (f.url == "" || strings.TrimRight(f.url, "/") == chosen.URL) {
		return demo{URL: cmp.Or(f.url, chosen.URL), APIKey: cmp.Or(f.apiKey, chosen.APIKey)}, nil
	}
	d, err := devDemo(f.dataDir)
	if errors.Is(err, fs.ErrNotExist) && f.url == "" {
		return demo{}, usageError(fmt.Errorf("no server: start `kapsel dev`, set --url and KAPSEL_API_KEY, or say kapsel profiles set"))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return demo{}, err
	}
	if f.apiKey != "" {
		d.APIKey = f.apiKey
	} else if f.url != "" && strings.TrimRight(f.url, "/") != d.URL {
		return demo{}, usageError(fmt.Errorf("no API key for %s: set KAPSEL_API_KEY, or say kapsel profiles set", printable(f.url)))
	}
	d.URL = cmp.Or(f.url, d.URL)
	return d, nil
}

// sdk is a client that tries again, and goes on with streams.
func (f *clientFlags) sdk() (*kapsel.Client, error) {
	d, err := f.demo()
	if err != nil {
		return nil, err
	}
	client, err := kapsel.New(d.URL, kapsel.WithAPIKey(d.APIKey))
	if err != nil {
		return nil, usageError(err)
	}
	return client, nil
}

// checkKey refuses what cannot stand in a header as an API key.
func checkKey(key string) error {
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return usageError(errors.New("the API key has characters that no key has: it is kps_ and letters, digits, - and _"))
	}
	return nil
}

// checkURL refuses what cannot be the address of a server or of a log. "" is none.
func checkURL(name, text string) error {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return usageError(fmt.Errorf("%s %q is not an address such as https://kapsel.example.com", name, printable(text)))
	}
	return nil
}
