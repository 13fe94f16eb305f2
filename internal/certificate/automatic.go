package certificate

import (
	"crypto/tls"
	"net/http"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// ACMEProtocol is what an authority negotiates in the connection by which it proves who holds a name (RFC 8737). Nothing
// follows its handshake.
const ACMEProtocol = acme.ALPNProto

// Automatic says how certificates are asked for from an ACME authority (RFC 8555), by the challenge that needs nothing but
// the TLS port itself (TLS-ALPN-01, RFC 8737). That port must be 443 to the authority.
type Automatic struct {
	// Hosts are the names that certificates are asked for; a client that names another one is refused.
	Hosts []string
	// Directory holds the account's key and the certificates. Nodes that share it share them.
	Directory string
	// Authority is the URL of the ACME directory. Empty: Let's Encrypt.
	Authority string
	// Email is whom the authority writes to. Optional.
	Email string
	// Client speaks to the authority. Nil: http.DefaultClient.
	Client *http.Client
}

// Config is what a listener needs. Certificates are asked for at the first connection to a name, and renewed 30 days
// before their end. Its use is agreement to the authority's terms.
func (a Automatic) Config() *tls.Config {
	manager := &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(a.Directory), HostPolicy: autocert.HostWhitelist(a.Hosts...), Email: a.Email,
	}
	if a.Authority != "" || a.Client != nil {
		manager.Client = &acme.Client{DirectoryURL: a.Authority, HTTPClient: a.Client}
	}
	if a.Authority == "" && manager.Client != nil {
		manager.Client.DirectoryURL = autocert.DefaultACMEDirectory
	}
	config := manager.TLSConfig()
	config.MinVersion = tls.VersionTLS12
	return config
}
