package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kapsel-dev/kapsel/internal/certificate"
	"github.com/kapsel-dev/kapsel/server"
)

// originOfPage is what a browser sends as Origin: scheme, host and port, without a slash.
var originOfPage = regexp.MustCompile(`^https?://[^/\s*?#@]+$`)

// validateTransport reports what cannot be of how clients come to the node.
func (c Config) validateTransport() (errs []error) {
	if (c.TLSCertificate == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("a TLS certificate and its key go together: set --tls-cert and --tls-key"))
	}
	if c.TLSCertificate != "" && len(c.ACME.Hosts) > 0 {
		errs = append(errs, errors.New("a TLS certificate is given, or asked for from an ACME authority, not both"))
	}
	for _, host := range c.ACME.Hosts {
		if !strings.Contains(host, ".") || strings.ContainsAny(host, ":/*@ ") {
			errs = append(errs, fmt.Errorf("ACME host %q: want a name such as hooks.example.com", host))
		}
	}
	for _, origin := range c.CORSOrigins {
		if origin != "*" && !originOfPage.MatchString(origin) {
			errs = append(errs, fmt.Errorf("CORS origin %q: want a scheme and a host such as https://app.example.com, or *", origin))
		}
	}
	if c.AdminListen != "" {
		if _, _, err := net.SplitHostPort(c.AdminListen); err != nil {
			errs = append(errs, fmt.Errorf("admin listen address: %w: want host:port", err))
		}
	}
	return errs
}

// secured reports whether the node itself speaks TLS.
func (c Config) secured() bool { return c.TLSCertificate != "" || len(c.ACME.Hosts) > 0 }

func (c Config) scheme() string {
	if c.secured() {
		return "https"
	}
	return "http"
}

// openTLS makes the configuration of the listener, nil without TLS, and adds what keeps it fresh.
func (n *Node) openTLS(log *slog.Logger) (*tls.Config, error) {
	switch {
	case n.config.TLSCertificate != "":
		files, err := certificate.OpenFiles(n.config.TLSCertificate, n.config.TLSKey, certificate.DefaultPoll, log.With("component", "certificate"))
		if err != nil {
			return nil, err
		}
		n.certificates = files
		return files.Config(), nil
	case len(n.config.ACME.Hosts) > 0:
		automatic := n.config.ACME
		if automatic.Directory == "" {
			automatic.Directory = filepath.Join(n.config.StateDir, "acme")
		}
		return automatic.Config(), nil
	}
	return nil, nil
}

// byTLS reports whether clients come by TLS, to this node or to a proxy before it.
func (n *Node) byTLS() bool {
	u, err := url.Parse(n.config.PublicURL)
	return n.config.secured() || err == nil && u.Scheme == "https"
}

// openAdmin opens the admin listener, if there is to be one.
func (n *Node) openAdmin(log *slog.Logger) (err error) {
	if n.config.AdminListen == "" {
		return nil
	}
	handlers := map[string]http.Handler{"GET /metrics": n.meter.Handler()}
	if n.config.LogLevels != nil {
		handlers["/loglevel"] = n.config.LogLevels
	}
	n.admin, err = server.OpenAdmin(n.config.AdminListen, n.config.AdminPublic, n.ready, n.concern, handlers, slog.NewLogLogger(log.With("component", "admin").Handler(), slog.LevelWarn))
	if err != nil {
		return err
	}
	log.Info("profiles, metrics and health", "url", n.admin.URL())
	return nil
}

// AdminURL is where the admin listener is, empty when there is none.
func (n *Node) AdminURL() string {
	if n.admin == nil {
		return ""
	}
	return n.admin.URL()
}
