package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/retention"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/server"
	"github.com/kapsel-dev/kapsel/store"
)

// nodeFlags are the flags of the commands that run a node.
type nodeFlags struct {
	config   node.Config
	roles    []string
	logLevel string
	allowed  []string
	proxy    string

	witnessPolicy, witnessMode string

	trustedProxies  []string
	forwardedHeader string
}

func (f *nodeFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.config.DatabaseURL, "database-url", "", "PostgreSQL 15 or later, as a connection URI")
	flags.StringVar(&f.config.Listen, "listen", "127.0.0.1:8080", "address of the API and of intake; port 0 picks one")
	flags.StringSliceVar(&f.roles, "roles", nil, "parts of the work that this node takes: ingest, api, deliver, seal (default all)")
	flags.StringVar(&f.config.PublicURL, "public-url", "", "how clients reach this service (default http:// and the listen address)")
	flags.StringVar(&f.config.StateDir, "state-dir", "", "directory of the log's key and of the keyset that encrypts secrets")
	flags.StringVar(&f.config.SecretsKMS, "secrets-kms", "", secretsKMSUsage)
	flags.StringVar(&f.config.LogOrigin, "log-origin", "", "name of the log, fixed at the first start (default the public URL's host and /log/1)")
	flags.DurationVar(&f.config.Hold, "hold", 5*time.Second, "how long a webhook waits for a database that is away")
	flags.StringSliceVar(&f.allowed, "allow-destinations", nil, "private address ranges that may be delivered to, such as 10.0.0.0/8")
	flags.StringVar(&f.proxy, "egress-proxy", "", "HTTP proxy that deliveries go through, as a URL; addresses are still checked here")
	flags.StringVar(&f.config.TLSCertificate, "tls-cert", "", "PEM file of the certificate chain to serve TLS with; read again when it changes")
	flags.StringVar(&f.config.TLSKey, "tls-key", "", "PEM file of the certificate's key")
	flags.StringSliceVar(&f.config.ACME.Hosts, "acme-hosts", nil, "names to get certificates for from an ACME authority, whose terms you agree to; needs port 443")
	flags.StringVar(&f.config.ACME.Authority, "acme-url", "", "directory URL of the ACME authority (default Let's Encrypt)")
	flags.StringVar(&f.config.ACME.Email, "acme-email", "", "whom the ACME authority writes to")
	flags.StringSliceVar(&f.trustedProxies, "trusted-proxies", nil, "address ranges of the proxies before this node, whose word on a client's address is believed")
	flags.StringVar(&f.forwardedHeader, "forwarded-header", string(server.XForwardedFor), "header that the trusted proxies write: X-Forwarded-For or Forwarded")
	flags.StringSliceVar(&f.config.CORSOrigins, "cors-origins", nil, "origins whose pages may call the API, such as https://app.example.com")
	flags.StringVar(&f.config.AdminListen, "admin-listen", "", "loopback address of profiles, health and metrics, such as 127.0.0.1:9464 (default none)")
	flags.BoolVar(&f.config.AdminPublic, "admin-public", false, "let --admin-listen be an address that other machines reach; it asks for no key")
	flags.DurationVar(&f.config.BreakerPause, "breaker-pause", 30*time.Second, "how long a failing destination is left alone at first")
	flags.Int64Var(&f.config.SealLeaves, "seal-leaves", 100, "sign a tree head when so many leaves wait")
	flags.DurationVar(&f.config.SealAge, "seal-age", 10*time.Second, "sign a tree head when the oldest leaf waits for so long")
	flags.StringArrayVar(&f.config.LogKeys, "log-key", nil, "URL of a key that signs the log: a file, pkcs11:…, awskms:… or gcpkms:… (default a file in the state directory)")
	flags.StringVar(&f.witnessPolicy, "witness-policy", "", "file that names witnesses of the log and their quorum (docs/operations.md)")
	flags.StringVar(&f.witnessMode, "witness-mode", "warn", "without a quorum of witnesses: warn, or hold back tree heads until there is one")
	flags.DurationVar(&f.config.WitnessTimeout, "witness-timeout", 10*time.Second, "how long a head waits for its quorum before it is signed anew")
	flags.DurationVar(&f.config.KeepHeads, "keep-heads", 48*time.Hour, "keep every tree head for so long, then one an hour, after 30 days one a day")
	flags.DurationVar(&f.config.KeepPayloads, "keep-payloads", retention.DefaultPayloads, "how long payloads are kept, unless a tenant's limits say otherwise")
	flags.DurationVar(&f.config.KeepLedger, "keep-ledger", retention.DefaultLedger, "how long attempts and their leaves are kept")
	flags.DurationVar(&f.config.Grace, "grace", time.Minute, "how long a shutdown may take")
	flags.DurationVar(&f.config.PreStopDelay, "pre-stop-delay", 0, "how long to go on, not ready, before a shutdown: until the balancer knows")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
}

// parse fills in what flags cannot hold.
func (f *nodeFlags) parse() (slog.Level, error) {
	f.config.Version = version()
	f.config.SecretsKeyset = os.Getenv(keysetVariable)
	if err := f.checkZeros(); err != nil {
		return 0, err
	}
	var err error
	if f.config.Roles, err = node.ParseRoles(f.roles); err != nil {
		return 0, usageError(fmt.Errorf("--roles: %w", err))
	}
	if f.config.AllowedDestinations, err = parseRanges("--allow-destinations", f.allowed); err != nil {
		return 0, err
	}
	if f.config.TrustedProxies, err = parseRanges("--trusted-proxies", f.trustedProxies); err != nil {
		return 0, err
	}
	if f.config.ForwardedHeader, err = server.ParseForwardedHeader(f.forwardedHeader); err != nil {
		return 0, usageError(fmt.Errorf("--forwarded-header %w", err))
	}
	if f.proxy != "" {
		proxy, err := url.Parse(f.proxy)
		if err != nil { // which would show the credentials in it
			return 0, usageError(errors.New("--egress-proxy: want a URL such as http://proxy.example.com:3128"))
		}
		f.config.EgressProxy = proxy
	}
	if err := f.parseWitnesses(); err != nil {
		return 0, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return 0, usageError(fmt.Errorf("--log-level %q: want debug, info, warn or error", f.logLevel))
	}
	return level, nil
}

// checkZeros refuses 0 where node.Config would take it for the default: who says 0 means never, or for ever.
func (f *nodeFlags) checkZeros() error {
	for _, given := range []struct {
		flag string
		zero bool
	}{
		{"--hold", f.config.Hold == 0}, {"--breaker-pause", f.config.BreakerPause == 0}, {"--grace", f.config.Grace == 0},
		{"--seal-leaves", f.config.SealLeaves == 0}, {"--seal-age", f.config.SealAge == 0}, {"--witness-timeout", f.config.WitnessTimeout == 0},
		{"--keep-heads", f.config.KeepHeads == 0}, {"--keep-payloads", f.config.KeepPayloads == 0}, {"--keep-ledger", f.config.KeepLedger == 0},
	} {
		if given.zero {
			return usageError(fmt.Errorf("%s: want more than 0; leave it out for the default", given.flag))
		}
	}
	return nil
}

func parseRanges(flag string, texts []string) (ranges []netip.Prefix, err error) {
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, usageError(fmt.Errorf("%s: %w: want an address range such as 10.0.0.0/8", flag, err))
		}
		ranges = append(ranges, prefix)
	}
	return ranges, nil
}

func newServe() *cobra.Command {
	var flags nodeFlags
	cmd := &cobra.Command{
		Use: "serve", Short: "Run a node on a PostgreSQL of your own", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level, err := flags.parse()
			if err != nil {
				return err
			}
			flags.config.LogLevels = telemetry.NewLevels(level)
			flags.config.Logger = telemetry.NewJSON(os.Stderr, flags.config.LogLevels)
			if err := flags.config.Validate(); err != nil {
				return usageError(err)
			}
			if unknown := unknownVariables(cmd.Root(), os.Environ()); len(unknown) > 0 {
				flags.config.Logger.Warn("these variables are no settings and are ignored: mistyped?", "variables", unknown)
			}
			relaxCollector()
			limitMemory(flags.config.Logger)
			if text := os.Getenv(fault.Variable); text != "" {
				schedule, err := fault.Parse(text)
				if err != nil {
					return usageError(fmt.Errorf("%s: %w", fault.Variable, err))
				}
				fault.Enable(schedule)
				flags.config.Logger.Warn("failures are injected on purpose", "faults", text)
			}
			if flags.config.Tracer, err = telemetry.NewTracer(cmd.Context(), version(), flags.config.Logger); err != nil {
				return usageError(err)
			}
			n, err := node.Start(cmd.Context(), flags.config)
			if err != nil {
				return err
			}
			flags.config.Logger.Info("ready", "url", n.URL(), "log_origin", n.Origin())
			return untilDone(cmd.Context(), n)
		},
	}
	flags.add(cmd.Flags())
	return cmd
}

// untilDone waits for a signal or a failure, then stops the node.
func untilDone(ctx context.Context, n *node.Node) error {
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-n.Failed():
	}
	if err := n.Stop(context.WithoutCancel(ctx)); failure == nil {
		failure = err
	}
	return failure
}

// collectorPercent lets the heap grow to five times what is live before it is collected: a node's live heap is some tens
// of MiB, and collecting it often would cost more than the memory is worth. GOGC overrides it, GOMEMLIMIT bounds it.
const collectorPercent = 400

func relaxCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectorPercent)
	}
}

func newMigrate() *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the database's schema up to date", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				return usageError(fmt.Errorf("database URL is missing: set --database-url or KAPSEL_DATABASE_URL"))
			}
			ran, err := store.Migrate(cmd.Context(), url)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d migrations run, the schema is up to date\n", ran)
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "database-url", "", "PostgreSQL 15 or later, as a connection URI")
	return cmd
}
