// Package node builds every component from a Config, runs them under a supervisor, and stops them in the order that
// loses nothing. It is the only place that knows all of them.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/thejerf/suture/v4"

	"github.com/kapsel-dev/kapsel/internal/certificate"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ingest"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/limit"
	"github.com/kapsel-dev/kapsel/internal/retention"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/watch"
	"github.com/kapsel-dev/kapsel/internal/witness"
	"github.com/kapsel-dev/kapsel/server"
	"github.com/kapsel-dev/kapsel/store"
)

// Node is one running process of a service. Make it with Start, end it with Stop.
type Node struct {
	config Config
	id     uuid.UUID

	db         *store.DB
	keys       *secret.Keyring
	logKeys    *tlog.Keys
	origin     string
	routes     *route.Table
	sender     *delivery.Sender
	recorder   *ledger.Recorder
	dispatcher *delivery.Dispatcher
	limits     *limit.Limiter
	members    *membership
	sealer     *tlog.Sealer
	heads      *tlog.Heads
	sealSpans  *sealSpans
	retention  *retention.Keeper // nil: the node does not seal

	listener     net.Listener
	meter        *telemetry.Meter // nil: there is no admin listener
	http         *server.HTTPServer
	certificates *certificate.Files // nil: there are none, or an ACME authority gives them
	admin        *server.Admin      // nil: there is none
	failures     *telemetry.Counter // of components
	ended        *telemetry.Counter
	supervisor   *suture.Supervisor
	components   map[string]*component
	tokens       map[string]suture.ServiceToken
	stopAll      context.CancelFunc
	stopped      <-chan error
	failed       chan error
	stopping     atomic.Bool
	draining     context.Context // ends when streams are to
	drain        context.CancelFunc
}

// Start migrates the database, builds the node and starts it. When it returns without error, the node takes webhooks.
func Start(ctx context.Context, config Config) (_ *Node, err error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	n := &Node{
		config: config.withDefaults(), id: id.New(), failed: make(chan error, 1),
		components: make(map[string]*component), tokens: make(map[string]suture.ServiceToken),
	}
	n.draining, n.drain = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			n.discard()
		}
	}()
	if ran, err := store.Migrate(ctx, n.config.DatabaseURL); err != nil {
		return nil, err
	} else if ran > 0 {
		n.config.Logger.Info("migrated the database", "migrations", ran)
	}
	if n.db, err = store.Open(ctx, n.config.DatabaseURL); err != nil {
		return nil, err
	}
	if _, err := n.db.MakePartitions(ctx, n.db.Engine(), partitionDaysAhead); err != nil {
		n.config.Logger.Warn("partitions not made at the start, nodes that seal try again each minute", "error", err)
	}
	if off, err := n.db.LosesCommitted(ctx, n.db.Engine()); err != nil {
		return nil, fmt.Errorf("read the database's settings: %w", err)
	} else if off != "" {
		n.config.Logger.Warn("the database can lose what it has committed, and so webhooks that were acknowledged: switch these settings on, unless its storage does without", "settings", off)
	}
	if n.listener, err = net.Listen("tcp", n.config.Listen); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", n.config.Listen, err)
	}
	if n.config.PublicURL == "" {
		n.config.PublicURL = n.config.scheme() + "://" + n.listener.Addr().String()
	}
	if err := n.build(ctx); err != nil {
		return nil, err
	}
	n.run()
	return n, nil
}

// build makes the components, in the order of a webhook's way from its end to its beginning.
func (n *Node) build(ctx context.Context) error {
	log := n.config.Logger
	if err := n.openState(ctx); err != nil {
		return err
	}
	if n.config.AdminListen != "" {
		meter, err := telemetry.NewMeter(n.config.Version)
		if err != nil {
			return err
		}
		n.meter = meter
	}
	probe := newProbe(n.db, n.meter, log.With("component", "probe"))
	n.showRefusal(n.meter)
	reader := tlog.NewReader(n.db.Engine(), logID, n.origin)
	reader.SetMeter(n.meter)
	n.heads = tlog.NewHeads(reader)
	n.sealSpans = &sealSpans{tracer: n.config.Tracer, origin: n.origin, heads: n.heads}
	sealing := tlog.Config{
		LogID: logID, Origin: n.origin, Node: n.id, DB: n.db.Engine(), Keys: n.logKeys, NeverLeads: !n.has(RoleSeal),
		MaxLeaves: n.config.SealLeaves, MaxAge: n.config.SealAge,
		Logger: log.With("component", "sealer"), Heads: n.heads, OnSeal: n.sealSpans.onSeal(probe.onSeal(n.config.OnSeal)),
	}
	var err error
	if n.has(RoleSeal) {
		if sealing.HighWater, err = tlog.OpenHighWater(filepath.Join(n.config.StateDir, "log.highwater"), n.origin); err != nil {
			return err
		}
	}
	var collector *witness.Collector
	if n.config.Witnesses != nil && n.has(RoleSeal) {
		collector = witness.NewCollector(n.config.Witnesses, n.config.WitnessHold, tlog.StoredProof(n.db.Engine(), logID),
			tlog.StoreCosignatures(n.db.Engine(), logID), log.With("component", "witnesses"))
		collector.SetMeter(n.meter, n.heads.Latest)
		sealing.Witnesses, sealing.WitnessTimeout = collector, n.config.WitnessTimeout
	}
	n.sealer, err = tlog.NewSealer(sealing)
	if err != nil {
		return err
	}
	n.recorder = ledger.NewRecorder(n.db, n.id, logID, log.With("component", "recorder"), func(int) { n.sealer.Wake() })
	n.limits = limit.New(n.db, log.With("component", "usage"))
	if err := n.limits.Load(ctx); err != nil {
		return err
	}
	n.recorder.SetUsageMeter(n.limits)
	n.recorder.SetMeter(n.meter)
	n.limits.SetMeter(n.meter)
	n.sender = delivery.NewProxiedSender(n.config.EgressProxy, n.config.AllowedDestinations, n.config.Version)
	leases := delivery.NewLeases(n.db, n.id, log.With("component", "delivery"))
	n.dispatcher = delivery.NewDispatcher(n.id, n.sender, n.recorder, leases, log.With("component", "delivery"))
	n.dispatcher.SetBreakerPause(n.config.BreakerPause)
	n.dispatcher.SetMeter(n.meter)
	n.dispatcher.SetTracer(n.config.Tracer, n.sealSpans.recorded)
	if !n.has(RoleDeliver) {
		n.dispatcher.SendElsewhere()
	}
	n.routes = route.NewTable(n.db, n.keys, log.With("component", "routes"))
	if err := n.routes.Refresh(ctx); err != nil {
		return err
	}
	claimer := delivery.NewClaimer(n.db, n.id, delivery.DefaultLease, n.routes, n.dispatcher, leases, log.With("component", "claimer"))
	committer := ingest.NewCommitter(n.db, n.id, delivery.DefaultLease, n.config.Hold, n.dispatcher, log.With("component", "ingest"))
	committer.SetMeter(n.meter)
	committer.SetTracer(n.config.Tracer)
	name, _ := os.Hostname() // only for people
	n.members = &membership{
		db: n.db, nodeID: n.id, name: name, version: n.config.Version, roles: n.config.Roles, log: log.With("component", "membership"),
		live: func(all, ingesting, delivering int) {
			n.setNodes(ingesting, delivering)
			probe.nodes.Store(int64(all))
		},
	}
	if err := n.members.beat(ctx); err != nil {
		return fmt.Errorf("first heartbeat: %w", err)
	}
	follower := newHeadFollower(n.heads, log.With("component", "heads"))
	authenticator := tenant.NewAuthenticator(n.db)
	listeners := delivery.NewListeners(n.db, n.id, n.routes, claimer, n.dispatcher, log.With("component", "listeners"))
	notices := store.NewListener(n.config.DatabaseURL, log.With("component", "notices"), map[string]func(string){
		"kapsel_routes": func(string) {
			fault.Pass(fault.NodeNotice)
			n.routes.Poke()
		},
		tenant.NotifyChannel:   func(string) { authenticator.Forget() },
		tlog.NotifyChannel:     follower.Poke,
		tlog.SealChannel:       n.sealer.Requested,
		delivery.ListenChannel: listeners.Told,
	})
	secure, err := n.openTLS(log)
	if err != nil {
		return err
	}
	if err := n.openAdmin(log); err != nil {
		return err
	}
	eraser := ledger.NewEraser(n.db, n.id, logID, log.With("component", "eraser"), func(int) { n.sealer.Wake() })
	watchers := watch.NewHub(n.db, logID, log.With("component", "watch"))
	n.http = server.NewHTTPServer(server.New(server.Deps{
		DB: n.db.Requests, Routes: n.routes, Ingest: ingest.New(committer, n.limits), Sources: limit.NewSources(), Keyring: n.keys,
		Reader: reader, Heads: n.heads, Seal: n.sealer.SealAll, Authenticator: authenticator,
		Tester: delivery.NewTester(n.db, n.id, n.sender, n.recorder), Backlog: delivery.NewBacklog(n.db),
		Eraser: eraser, Watch: watchers, Listeners: listeners,
		IntakeElsewhere: !n.has(RoleIngest), APIElsewhere: !n.has(RoleAPI),
		PublicURL: n.config.PublicURL, AllowedDestinations: n.config.AllowedDestinations,
		TLS: n.byTLS(), TrustedProxies: n.config.TrustedProxies, ForwardedHeader: n.config.ForwardedHeader, CORSOrigins: n.config.CORSOrigins,
		Logger: log.With("component", "server"), Meter: n.meter, Version: n.config.Version, Stopping: n.draining.Done(), Ready: n.ready, Concern: n.concern,
	}), secure, slog.NewLogLogger(log.With("component", "server").Handler(), slog.LevelWarn))

	n.failures = n.meter.Counter("kapsel.component.failures", "Times that a component failed and was started again, by component and cause.")
	n.ended = n.meter.Counter("kapsel.component.ended", "Components that refused to go on and were not started again.")
	n.supervisor = newSupervisor(log, n.failures)
	if n.certificates != nil {
		n.add("certificate", n.certificates.Run)
	}
	if n.admin != nil {
		n.add("admin", n.admin.Run)
	}
	if n.meter != nil {
		n.add("probe", func(ctx context.Context) error { return probe.Run(ctx, n.heads) })
	}
	if n.config.Tracer.On() {
		n.add("seal spans", n.sealSpans.Run)
	}
	n.addFor(RoleSeal, "eraser", eraser.Run)
	n.add("keyset", n.keys.Run)
	n.add("membership", n.members.Run)
	n.addFor(RoleSeal, "maintenance", (&maintenance{db: n.db, keepHeads: n.config.KeepHeads, log: log.With("component", "maintenance")}).Run)
	if n.has(RoleSeal) {
		n.retention = retention.New(n.db, n.config.KeepPayloads, n.config.KeepLedger, log.With("component", "retention"))
		n.retention.SetMeter(n.meter)
		n.add("retention", n.retention.Run)
	}
	n.add("notices", notices.Run)
	n.addFor(RoleSeal, "deletions", tenant.NewDeletions(n.db, log.With("component", "deletions")).Run)
	n.add("routes", n.routes.Run)
	n.add("API keys", func(ctx context.Context) error { return authenticator.Run(ctx, log.With("component", "API keys")) })
	n.add("heads", follower.Run)
	if collector != nil {
		n.add("witnesses", collector.Run)
	}
	n.addFor(RoleSeal, "sealer", n.seals)
	n.addFor(RoleSeal, "leaf hashes", tlog.NewLeafIndexer(reader, n.heads, log.With("component", "leaf hashes")).Run)
	n.add("recorder", n.recorder.Run)
	n.addFor(RoleDeliver, "claimer", claimer.Run)
	n.addFor(RoleDeliver, "holder", delivery.NewHolder(n.db, n.routes, n.dispatcher, claimer, log.With("component", "holder")).Run)
	n.addFor(RoleDeliver, "removals", delivery.NewRemovals(n.db, delivery.RemovalSettle, log.With("component", "removals")).Run)
	n.addFor(RoleSeal, "replayer", ledger.NewReplayer(n.db, log.With("component", "replayer")).Run)
	n.addFor(RoleDeliver, "cancelled leases", ledger.NewCancelledLeases(n.db, n.id, logID, log.With("component", "cancelled leases"), func(int) { n.sealer.Wake() }).Run)
	n.addFor(RoleAPI, "listeners", listeners.Run)
	n.add("listen notices", listeners.Tell)
	n.addFor(RoleAPI, "watch", watchers.Run)
	n.addFor(RoleIngest, "committer", committer.Run)
	n.add("usage", n.limits.Run)
	return nil
}

// openState reads, or makes on first start, what lives outside the database, and the log's identity.
func (n *Node) openState(ctx context.Context) (err error) {
	if err := os.MkdirAll(n.config.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := n.checkKeysetIsNotForgotten(ctx); err != nil {
		return err
	}
	if n.keys, err = openKeyset(ctx, n.config); err != nil {
		return err
	}
	if n.has(RoleSeal) {
		if n.logKeys, err = tlog.OpenKeys(ctx, n.config.StateDir, n.config.LogKeys); err != nil {
			return err
		}
	}
	if n.origin, err = n.logOrigin(ctx); err != nil {
		return err
	}
	return n.ensureLog(ctx)
}

// checkKeysetIsNotForgotten refuses to make a new keyset for a service that has secrets: this node could not read them, and no other
// one could read what this node encrypts. A database without secrets is a first start's.
func (n *Node) checkKeysetIsNotForgotten(ctx context.Context) error {
	path := filepath.Join(n.config.StateDir, secretsFile)
	if _, err := os.Lstat(path); n.config.SecretsKeyset != "" || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	endpoints, err := n.db.RouteEndpointSecrets(ctx, n.db.Engine())
	if err != nil {
		return fmt.Errorf("look for secrets: %w", err)
	}
	destinations, err := n.db.RouteDestinationSecrets(ctx, n.db.Engine())
	if err != nil {
		return fmt.Errorf("look for secrets: %w", err)
	}
	if len(endpoints)+len(destinations) == 0 {
		return nil
	}
	return fmt.Errorf("%s is missing, and the database has secrets that are encrypted with it: copy it from another node or a backup; if it is lost, "+
		"kapsel state init makes a new one, and each secret must be set anew", path)
}

// logOrigin is the configured name of the log, else the one that the database has, else one made from the public URL.
func (n *Node) logOrigin(ctx context.Context) (string, error) {
	log, err := n.db.GetLog(ctx, n.db.Engine(), logID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		if n.config.LogOrigin != "" {
			return n.config.LogOrigin, nil
		}
		u, err := url.Parse(n.config.PublicURL)
		if err != nil {
			return "", fmt.Errorf("public URL: %w", err)
		}
		return u.Host + "/log/1", nil
	case err != nil:
		return "", fmt.Errorf("read log: %w", err)
	case n.config.LogOrigin != "" && n.config.LogOrigin != log.Origin:
		return "", fmt.Errorf("the log's origin is %q and can never change: it cannot become %q", log.Origin, n.config.LogOrigin)
	default:
		return log.Origin, nil
	}
}

func (n *Node) add(name string, run func(context.Context) error) {
	n.failures.With("component", name, "cause", "panic")
	n.failures.With("component", name, "cause", "error")
	c := &component{name: name, run: run, log: n.config.Logger, ended: n.ended.With("component", name)}
	n.components[name], n.tokens[name] = c, n.supervisor.Add(c)
}

func (n *Node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	n.stopAll = cancel
	n.stopped = n.supervisor.ServeBackground(ctx)
	go func() {
		if err := n.http.Serve(n.listener); !errors.Is(err, http.ErrServerClosed) {
			n.failed <- fmt.Errorf("serve HTTP: %w", err)
		}
	}()
}

// setNodes shares what holds over all nodes.
func (n *Node) setNodes(ingesting, delivering int) {
	n.limits.SetNodes(ingesting)
	n.dispatcher.SetNodes(delivering)
}

var (
	errStopping = errors.New("the node is stopping")
	errReadOnly = errors.New("the database takes no writes: it is a standby, or was set so, such as for want of disk")
)

// ready reports why the node cannot take webhooks, nil when it can.
func (n *Node) ready() error {
	if n.stopping.Load() {
		return errStopping
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	readOnly, err := n.db.ReadOnly(ctx, n.db.Engine())
	if err == nil && readOnly {
		return errReadOnly
	}
	return err
}

// ID is the node's id, new with each start.
func (n *Node) ID() uuid.UUID { return n.id }

// URL is the address that the node listens on.
func (n *Node) URL() string { return n.config.scheme() + "://" + n.listener.Addr().String() }

// DB is the node's database.
func (n *Node) DB() *store.DB { return n.db }

// Keyring encrypts secrets at rest.
func (n *Node) Keyring() *secret.Keyring { return n.keys }

// Routes is the node's configuration snapshot.
func (n *Node) Routes() *route.Table { return n.routes }

// Origin is the log's name.
func (n *Node) Origin() string { return n.origin }

// VerifierKey is the log's newest public key as a verifier wants it.
func (n *Node) VerifierKey(ctx context.Context) (string, error) {
	keys, err := n.db.LogKeysInForce(ctx, n.db.Engine(), logID)
	if err != nil || len(keys) == 0 {
		return "", fmt.Errorf("read keys in force: there are %d: %w", len(keys), err)
	}
	return checkpoint.VerifierKey(n.origin, keys[0])
}

// Failed gets the error that ended the node's HTTP server, if one did.
func (n *Node) Failed() <-chan error { return n.failed }
