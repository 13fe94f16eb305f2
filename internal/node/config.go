package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/kapsel-dev/kapsel/internal/certificate"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/retention"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/witness"
	"github.com/kapsel-dev/kapsel/server"
)

// Config says how a node runs. Zero fields have the defaults that their comments name.
type Config struct {
	// DatabaseURL is a PostgreSQL connection URI or keyword string. Required.
	DatabaseURL string
	// Listen is the TCP address of the API and of intake. Default 127.0.0.1:8080; port 0 picks one.
	Listen string
	// Roles are the parts of the work that this node takes. Default: all.
	Roles []Role
	// PublicURL is how clients reach this service. Default: http:// or https:// and the address that Listen came to.
	PublicURL string
	// TLSCertificate and TLSKey are PEM files of the certificate chain and key that clients are shown; they are read again when
	// they change. Both empty: no TLS, unless ACME names hosts.
	TLSCertificate, TLSKey string
	// ACME asks an authority for certificates, for the hosts that it names. Its directory is in StateDir unless it is set.
	ACME certificate.Automatic
	// TrustedProxies are the addresses of proxies before this node. Only what they say of a client's address is believed, and
	// only in ForwardedHeader. Default: none, and X-Forwarded-For.
	TrustedProxies  []netip.Prefix
	ForwardedHeader server.ForwardedHeader
	// CORSOrigins are those whose pages may call the API. Default: none.
	CORSOrigins []string
	// AdminListen is the TCP address of profiles, health and metrics, for those who run the node. It must be a loopback address,
	// unless AdminPublic says that others are kept away from it by other means. Default: there is no such listener.
	AdminListen string
	AdminPublic bool
	// StateDir holds the log's signing key, its high-water mark and the keyset that encrypts secrets. Required. Nodes of one
	// service share the key and the keyset; lose them, and secrets cannot be read and no head can be signed any more.
	StateDir string
	// SecretsKeyset is the keyset that encrypts secrets, as the base64 of its JSON. Default: the file in StateDir, which is made
	// at the first start.
	SecretsKeyset string
	// SecretsKMS is the URL of a key in a cloud's KMS (signer.OpenAEAD) that the keyset is encrypted under. It is asked at the start and
	// when the keyset changes. Default: the keyset is in the clear.
	SecretsKMS string
	// LogKeys are URLs of keys that the log is signed with (tlog.OpenKey), beside those in files log*.key of StateDir. Without
	// any, a new state directory gets a key file.
	LogKeys []string
	// Witnesses are asked to cosign tree heads. With WitnessHold a head is published only when their quorum has cosigned it;
	// otherwise a quorum that is missing is logged. WitnessTimeout is how long a head waits before it is given up and signed
	// anew, 1 s to 5 min. Defaults: none, no hold, 10 s.
	Witnesses      *witness.Policy
	WitnessHold    bool
	WitnessTimeout time.Duration
	// LogOrigin names the log in its checkpoints: a URL without scheme and trailing slash. It can never be changed.
	// Default: what the database has, else PublicURL's host and /log/1.
	LogOrigin string
	// Hold is how long a webhook waits for a database that is away before its source gets 503. Default 5 s.
	Hold time.Duration
	// AllowedDestinations are private or otherwise special address ranges that may be delivered to all the same.
	AllowedDestinations []netip.Prefix
	// EgressProxy is an HTTP proxy that deliveries go through, by CONNECT. Destinations are resolved and checked here all the
	// same; the proxy's own address is not. Default: none.
	EgressProxy *url.URL
	// BreakerPause is how long nothing is sent to a destination at first whose circuit breaker has opened. Default 30 s.
	BreakerPause time.Duration
	// SealLeaves and SealAge say when a tree head is signed: so many leaves wait, or the oldest is so old.
	// Defaults 100 and 10 s.
	SealLeaves int64
	SealAge    time.Duration
	// KeepHeads is for how long every tree head is kept; after that one of each hour, after 30 days one of each day.
	// Default 48 h, at least 1 h.
	KeepHeads time.Duration
	// KeepPayloads is for how long payloads are kept, where a tenant does not say otherwise, and KeepLedger for how long attempts
	// with their leaves are: both to the end of a day (UTC). Defaults 30 days and 7 years; at least 1 and 30 days.
	KeepPayloads time.Duration
	KeepLedger   time.Duration
	// PreStopDelay is how long a node that stops says "not ready" and takes webhooks all the same, until its balancer has
	// seen that. Default 0.
	PreStopDelay time.Duration
	// DrainTimeout bounds each step of a shutdown. Default 20 s, longer than a destination's usual timeout.
	DrainTimeout time.Duration
	// Grace bounds a shutdown after its pre-stop delay. Default 60 s.
	Grace time.Duration
	// Version of the program.
	Version string
	Logger  *slog.Logger
	// Tracer exports spans; the node closes it when it stops. Nil: there are none.
	Tracer *telemetry.Tracer
	// LogLevels are those of Logger, to be changed at the admin listener. Optional.
	LogLevels *telemetry.Levels
	// OnSeal is called after each tree head was published. Optional; it must not block.
	OnSeal func(tlog.SealStats)
}

const (
	defaultListen       = "127.0.0.1:8080"
	defaultHold         = 5 * time.Second
	defaultDrainTimeout = 20 * time.Second
	defaultGrace        = time.Minute
	defaultKeepHeads    = 48 * time.Hour

	// logID is the one log that a service has.
	logID = 1
)

var originPattern = regexp.MustCompile(`^[^\s+]{1,255}$`)

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	if len(c.Roles) == 0 {
		c.Roles = allRoles
	}
	if c.Hold == 0 {
		c.Hold = defaultHold
	}
	if c.BreakerPause == 0 {
		c.BreakerPause = delivery.DefaultBreakerPause
	}
	if c.KeepPayloads == 0 {
		c.KeepPayloads = retention.DefaultPayloads
	}
	if c.KeepLedger == 0 {
		c.KeepLedger = retention.DefaultLedger
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = defaultDrainTimeout
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.WitnessTimeout == 0 {
		c.WitnessTimeout = tlog.DefaultWitnessTimeout
	}
	if c.KeepHeads == 0 {
		c.KeepHeads = defaultKeepHeads
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	return c
}

// Validate reports every field that cannot be, at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.DatabaseURL == "" {
		errs = append(errs, errors.New("database URL is missing: set KAPSEL_DATABASE_URL, or use `kapsel dev`"))
	}
	if c.StateDir == "" {
		errs = append(errs, errors.New("state directory is missing: set --state-dir"))
	}
	for _, role := range c.Roles {
		if !slices.Contains(allRoles, role) {
			errs = append(errs, fmt.Errorf("role %q: want some of ingest, api, deliver and seal", role))
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen address: %w: want host:port", err))
	}
	if c.PublicURL != "" {
		if u, err := url.Parse(c.PublicURL); err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			errs = append(errs, errors.New("public URL: want http:// or https:// and a host, without user information, query and fragment"))
		}
	}
	if p := c.EgressProxy; p != nil && (p.Hostname() == "" || p.Scheme != "http" && p.Scheme != "https" || p.Path != "" && p.Path != "/" || p.RawQuery != "" || p.Fragment != "") {
		errs = append(errs, fmt.Errorf("egress proxy %q: want http:// or https://, a host, and nothing behind its port", p.Redacted()))
	}
	if c.LogOrigin != "" && !originPattern.MatchString(c.LogOrigin) {
		errs = append(errs, fmt.Errorf("log origin %q: want a URL without scheme, spaces and plus signs", c.LogOrigin))
	}
	errs = append(errs, c.validateTransport()...)
	if c.Hold < 0 || c.Hold > time.Minute {
		errs = append(errs, fmt.Errorf("hold %v is over 1m, or negative", c.Hold))
	}
	if c.KeepPayloads < retention.MinPayloads {
		errs = append(errs, fmt.Errorf("keep payloads %v is under %v", c.KeepPayloads, retention.MinPayloads))
	}
	if c.KeepLedger < retention.MinLedger || c.KeepLedger < c.KeepPayloads {
		errs = append(errs, fmt.Errorf("keep ledger %v is under %v, or shorter than payloads are kept", c.KeepLedger, retention.MinLedger))
	}
	if c.WitnessHold && c.Witnesses == nil {
		errs = append(errs, errors.New("heads are to be held back for witnesses, and no witness policy is given"))
	}
	if c.WitnessTimeout < time.Second || c.WitnessTimeout > 5*time.Minute {
		errs = append(errs, fmt.Errorf("witness timeout %v is outside 1s to 5m", c.WitnessTimeout))
	}
	if c.BreakerPause < 10*time.Millisecond || c.BreakerPause > time.Hour {
		errs = append(errs, fmt.Errorf("breaker pause %v is outside 10ms to 1h", c.BreakerPause))
	}
	if c.KeepHeads < time.Hour {
		errs = append(errs, fmt.Errorf("keep heads %v is below 1h", c.KeepHeads))
	}
	if c.SealLeaves < 0 || c.SealAge < 0 || c.DrainTimeout < 0 || c.Grace < 0 || c.PreStopDelay < 0 {
		errs = append(errs, errors.New("seal leaves, seal age, pre-stop delay, drain timeout and grace must not be negative"))
	}
	return errors.Join(errs...)
}
