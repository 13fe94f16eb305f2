package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/spf13/pflag"

	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
)

// client speaks to a server in the name of a tenant.
type client struct {
	endpoints    kapselv1connect.EndpointServiceClient
	destinations kapselv1connect.DestinationServiceClient
	events       kapselv1connect.EventServiceClient
	deliveries   kapselv1connect.DeliveryServiceClient
	attestation  kapselv1connect.AttestationServiceClient
	tenants      kapselv1connect.TenantServiceClient
}

func newClient(url, apiKey string) client {
	c := connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: bearer(apiKey)}, url))
	return client{
		endpoints:    kapselv1connect.NewEndpointServiceClient(c),
		destinations: kapselv1connect.NewDestinationServiceClient(c),
		events:       kapselv1connect.NewEventServiceClient(c),
		deliveries:   kapselv1connect.NewDeliveryServiceClient(c),
		attestation:  kapselv1connect.NewAttestationServiceClient(c),
		tenants:      kapselv1connect.NewTenantServiceClient(c),
	}
}

// bearer adds an API key to each request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// clientFlags say which server to speak to. Without them it is that of `kapsel dev`.
type clientFlags struct {
	url, apiKey, dataDir string
}

func (f *clientFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "url", "", "address of the server (default that of kapsel dev)")
	flags.StringVar(&f.apiKey, "api-key", "", "API key; better in KAPSEL_API_KEY (default that of kapsel dev)")
	flags.StringVar(&f.dataDir, "data-dir", "", "data directory of kapsel dev, if not the usual one")
}

// demo is the server that the flags name, the rest filled in from the data directory of kapsel dev.
func (f *clientFlags) demo() (demo, error) {
	if f.url != "" && f.apiKey != "" {
		return demo{URL: f.url, APIKey: f.apiKey}, nil
	}
	dir, err := devDir(f.dataDir)
	if err != nil {
		return demo{}, err
	}
	d, err := readDemo(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return demo{}, usageError(fmt.Errorf("no server: start `kapsel dev`, or set --url and KAPSEL_API_KEY"))
	}
	if err != nil {
		return demo{}, err
	}
	if f.url != "" {
		d.URL = f.url
	}
	if f.apiKey != "" {
		d.APIKey = f.apiKey
	}
	return d, nil
}
