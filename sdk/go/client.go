package kapsel

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
)

// Client holds a client of each service. It is safe for concurrent use. Make it with New.
type Client struct {
	Ingest       kapselv1connect.IngestServiceClient
	Endpoints    kapselv1connect.EndpointServiceClient
	Destinations kapselv1connect.DestinationServiceClient
	Events       kapselv1connect.EventServiceClient
	Deliveries   kapselv1connect.DeliveryServiceClient
	Attestation  kapselv1connect.AttestationServiceClient
	Tenants      kapselv1connect.TenantServiceClient
	Listen       kapselv1connect.ListenServiceClient
}

// Option changes what New makes.
type Option func(*config)

type config struct {
	key          func(context.Context) (string, error)
	http         *http.Client
	timeout      time.Duration
	retry        Retry
	interceptors []connect.ClientInterceptor
	transport    []connecthttp.Option
}

// WithAPIKey sends the API key, kps_…, with each call. Without one only what is public can be called.
func WithAPIKey(key string) Option {
	return func(c *config) { c.key = func(context.Context) (string, error) { return key, nil } }
}

// WithAPIKeyFunc asks for the API key before each try of a call, for keys that change.
func WithAPIKeyFunc(key func(context.Context) (string, error)) Option {
	return func(c *config) { c.key = key }
}

// WithHTTPClient uses another client than one of its own, which has Go's default transport with pings of HTTP/2, and follows no redirects. It
// must not have a Timeout, which would end streams. Over HTTP/2 set pings (http.HTTP2Config), else calls go on over a connection that has
// died, until the kernel gives it up.
func WithHTTPClient(client *http.Client) Option { return func(c *config) { c.http = client } }

// WithTimeout bounds each call that is not a stream, all its tries together, where its context has no deadline. Default: 30 s.
// 0: no bound.
func WithTimeout(timeout time.Duration) Option { return func(c *config) { c.timeout = timeout } }

// WithRetry changes how calls are tried again.
func WithRetry(retry Retry) Option { return func(c *config) { c.retry = retry } }

// WithInterceptors adds interceptors of Connect, the first one outermost. They see each try.
func WithInterceptors(interceptors ...connect.ClientInterceptor) Option {
	return func(c *config) { c.interceptors = append(c.interceptors, interceptors...) }
}

// WithGRPC speaks gRPC instead of Connect's protocol. It needs HTTP/2: over http:// set an HTTP client that speaks h2c.
func WithGRPC() Option {
	return func(c *config) { c.transport = append(c.transport, connecthttp.WithGRPC()) }
}

// New makes a client of the server at baseURL, such as "https://kapsel.example.com". It does not connect yet.
func New(baseURL string, options ...Option) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("base URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New(`base URL must be like "https://kapsel.example.com": http or https, a host, no user, query or fragment`)
	}
	c := config{http: &http.Client{Transport: pinging{}, CheckRedirect: noRedirect}, timeout: 30 * time.Second, retry: DefaultRetry}
	for _, option := range options {
		option(&c)
	}
	interceptors := append([]connect.ClientInterceptor{c.retry.intercept(c.timeout)}, c.interceptors...)
	if c.key != nil {
		interceptors = append(interceptors, authorize(c.key))
	}
	client := connect.NewClient(connecthttp.NewTransport(c.http, strings.TrimRight(baseURL, "/"), c.transport...), interceptors...)
	return &Client{
		Ingest:       kapselv1connect.NewIngestServiceClient(client),
		Endpoints:    kapselv1connect.NewEndpointServiceClient(client),
		Destinations: kapselv1connect.NewDestinationServiceClient(client),
		Events:       kapselv1connect.NewEventServiceClient(client),
		Deliveries:   kapselv1connect.NewDeliveryServiceClient(client),
		Attestation:  kapselv1connect.NewAttestationServiceClient(client),
		Tenants:      kapselv1connect.NewTenantServiceClient(client),
		Listen:       kapselv1connect.NewListenServiceClient(client),
	}, nil
}

func authorize(key func(context.Context) (string, error)) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			secret, err := key(ctx)
			if err != nil {
				return nil, fmt.Errorf("API key: %w", err)
			}
			if info, found := connect.CallInfoForClientContext(ctx); found {
				info.RequestHeader().Set("Authorization", "Bearer "+secret)
			}
			return next(ctx, spec)
		}
	}
}
