// Package server is the edge: the Connect services, POST /ingest, the public log, health. It translates between the
// contract (proto/kapsel/v1) and the packages behind it, and decides nothing.
//
// Who calls and what they may do is settled by interceptors, before a request's body is read; what can be wrong with a
// message by its own rules is settled before a handler sees it; errors become Connect codes in errors.go and problem+json
// in problem.go, and nowhere else. A tenant's data is only ever read through store.Requests.AsTenant: the engine's role is
// out of reach here, but for what Deps lends for one purpose each.
package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"

	"code.dny.dev/ssrf"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"

	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/ingest"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/limit"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/watch"
	"github.com/kapsel-dev/kapsel/store"
)

// Deps is what the edge stands on. All fields are required, but for those that say what is allowed or trusted.
type Deps struct {
	DB      *store.Requests
	Routes  *route.Table
	Ingest  *ingest.Ingest
	Sources *limit.Sources
	Keyring *secret.Keyring
	Reader  *tlog.Reader
	Heads   *tlog.Heads
	// Seal has a head published over all leaves that are recorded now, by whichever node leads.
	Seal          func(context.Context) (tlog.Head, error)
	Authenticator *tenant.Authenticator
	Tester        *delivery.Tester
	Backlog       delivery.Backlog
	Eraser        *ledger.Eraser
	// Watch tells streams of events when to look.
	Watch *watch.Hub
	// Listeners carry deliveries down the streams of ListenService.
	Listeners *delivery.Listeners
	// IntakeElsewhere and APIElsewhere leave IngestService and /ingest, or everything else but health, to other nodes.
	IntakeElsewhere, APIElsewhere bool
	// PublicURL is how clients reach this service, without a trailing slash.
	PublicURL string
	// AllowedDestinations are private or otherwise special address ranges that may be delivered to all the same.
	AllowedDestinations []netip.Prefix
	// Resolver looks up the names of destinations when they are made. Nil: the system's.
	Resolver *net.Resolver
	// TLS says that clients come by TLS, to this process or to a proxy before it: they are told to go on so (HSTS).
	TLS bool
	// TrustedProxies are the addresses of proxies whose ForwardedHeader is believed. None: nobody's is.
	TrustedProxies []netip.Prefix
	// ForwardedHeader is the one that trusted proxies write. Default X-Forwarded-For.
	ForwardedHeader ForwardedHeader
	// CORSOrigins are those whose pages may call the API, "*" for all. The public log is open to every page.
	CORSOrigins []string
	Logger      *slog.Logger
	// Meter shows what is counted. Nil: nobody asks.
	Meter   *telemetry.Meter
	Version string
	// Stopping is closed when the node begins to stop: streams that would stay open end then.
	Stopping <-chan struct{}
	// Ready reports why the node cannot take webhooks, nil when it can.
	Ready func() error
	// Concern reports what an operator must look at although the node can take webhooks, nil when there is nothing. Optional.
	Concern func() error
}

// Largest messages, decompressed. A batch is bounded by its contract; the rest of a message is its ids and headers.
const (
	maxMessageBytes = 4 << 20
	maxIngestBytes  = 11 << 20
	maxBatchBytes   = 34 << 20
)

// api is what all services share.
type api struct {
	Deps
	finder *endpointFinder
	guard  *ssrf.Guardian
	memory *memory
	// services are the names of those that are served.
	services map[string]bool
}

// New makes the handler of everything that a node serves.
func New(deps Deps) http.Handler {
	return newHandler(deps, &memory{max: maxRequestMemory, callTimeout: callTimeout})
}

func newHandler(deps Deps, requests *memory) http.Handler {
	deps.PublicURL = strings.TrimSuffix(deps.PublicURL, "/")
	a := &api{
		Deps:   deps,
		finder: &endpointFinder{routes: deps.Routes},
		guard:  delivery.NewGuard(deps.AllowedDestinations),
		memory: requests,
	}
	calls := newCallMetrics(deps.Meter)
	rpc := connect.NewServer(calls.measure, a.translateErrors, a.refuseElsewhere, a.authenticate, validate)
	kapselv1connect.RegisterIngestServiceHandler(rpc, &ingestService{api: a})
	kapselv1connect.RegisterEndpointServiceHandler(rpc, &endpointService{api: a})
	kapselv1connect.RegisterDestinationServiceHandler(rpc, &destinationService{api: a})
	kapselv1connect.RegisterEventServiceHandler(rpc, &eventService{api: a})
	kapselv1connect.RegisterDeliveryServiceHandler(rpc, &deliveryService{api: a})
	kapselv1connect.RegisterAttestationServiceHandler(rpc, &attestationService{api: a, feed: newHeadFeed(a)})
	kapselv1connect.RegisterTenantServiceHandler(rpc, &tenantService{api: a})
	kapselv1connect.RegisterListenServiceHandler(rpc, &listenService{api: a})
	grpcreflect.Register(rpc)
	a.services = make(map[string]bool)
	for spec := range rpc.Specs() {
		if a.servedHere(spec.Procedure) {
			a.services[path.Base(path.Dir(spec.Procedure))] = true
			calls.know(spec)
		}
	}

	procedures := http.NewServeMux()
	connecthttp.Mount(procedures, rpc, append(messageForms(),
		connecthttp.WithReadMaxBytes(maxMessageBytes),
		connecthttp.WithConditionalOptions(messageBounds))...)

	mux := http.NewServeMux()
	var intake http.Handler = &ingestHandler{api: a, bodyTimeout: webhookTimeout, metrics: newIngestMetrics(deps.Meter)}
	logs := counted(deps.Meter, newLogHandler(a))
	if deps.IntakeElsewhere {
		intake = elsewhere(intakeElsewhere)
	}
	if deps.APIElsewhere {
		logs = elsewhere(apiElsewhere)
	}
	mux.Handle(ingestPath, intake)
	mux.HandleFunc("/livez", a.serveLive)
	mux.HandleFunc("/readyz", a.serveReady)
	mux.Handle(newHealthHandler(a))
	mux.Handle("/log/", logs)
	mux.Handle("/openapi.yaml", newOpenAPIHandler())
	mux.Handle(wellKnownPath, logs)
	mux.Handle("/", shared(a.memory.bound(controlled(procedures, streamWriteTimeout)), deps.CORSOrigins))
	return behindProxies(secured(mux, deps.TLS), deps.TrustedProxies, deps.ForwardedHeader)
}

func messageBounds(spec connect.Spec) []connecthttp.Option {
	switch spec.Procedure {
	case kapselv1connect.IngestServiceIngestProcedure:
		return []connecthttp.Option{connecthttp.WithReadMaxBytes(maxIngestBytes)}
	case kapselv1connect.IngestServiceIngestBatchProcedure:
		return []connecthttp.Option{connecthttp.WithReadMaxBytes(maxBatchBytes)}
	}
	return nil
}
