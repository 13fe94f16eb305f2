package route

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

// The kinds of a destination's credentials, which also bind a ciphertext to its row.
const (
	ClientKeyKind    = "tls_key"
	ClientSecretKind = "client_secret"
	HeadersKind      = "headers"
)

// CredentialPurpose binds the ciphertext of a credential to what it is for.
func CredentialPurpose(kind string) string { return "destination_" + kind }

// maxChain bounds the certificates of a chain, and the authorities that are trusted.
const maxChain = 100

var errUnreadableCredential = errors.New("a credential cannot be decrypted: restore the keyset that it was encrypted with, or set headers, client_tls and client_credentials anew")

// ClientTLS is how a destination wants TLS to be spoken.
type ClientTLS struct {
	// Config has the certificate to show and the authorities to trust.
	Config *tls.Config
	// Fingerprint tells it from any other: connections are shared by those of one fingerprint.
	Fingerprint [sha256.Size]byte
}

// ClientCredentials is how access tokens for a destination are got.
type ClientCredentials struct {
	TokenURL, ClientID string
	ClientSecret       secret.Secret
	Scopes             []string
	Audience           string
	// InBody sends id and secret in the request's body instead of the header Authorization.
	InBody bool
	// Fingerprint tells it from any other: tokens are shared by those of one fingerprint.
	Fingerprint [sha256.Size]byte
}

// NewClientTLS reads PEM: a chain with its key, or none, and authorities, or none for the system's. notAfter is when the
// certificate ends.
func NewClientTLS(chain, key, authorities []byte) (_ *ClientTLS, notAfter time.Time, err error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(chain) > 0 {
		if bytes.Count(chain, []byte("-----BEGIN")) > maxChain {
			return nil, notAfter, fmt.Errorf("certificate_chain: more than %d certificates", maxChain)
		}
		pair, err := tls.X509KeyPair(chain, key)
		if err != nil { // which quotes neither
			return nil, notAfter, fmt.Errorf("certificate_chain and private_key: %w", err)
		}
		config.Certificates, notAfter = []tls.Certificate{pair}, pair.Leaf.NotAfter
		// With HTTP/2 the reason would be lost for which a server does not take a certificate.
		config.NextProtos = []string{"http/1.1"}
	}
	if len(authorities) > 0 {
		if config.RootCAs, err = readAuthorities(authorities); err != nil {
			return nil, notAfter, err
		}
	}
	hash := sha256.New()
	for _, part := range [][]byte{chain, key, authorities} {
		fmt.Fprintf(hash, "%d:", len(part))
		hash.Write(part)
	}
	return &ClientTLS{Config: config, Fingerprint: [sha256.Size]byte(hash.Sum(nil))}, notAfter, nil
}

// ChainEnds is when the first certificate of a chain ends.
func ChainEnds(chain []byte) (notAfter time.Time, ok bool) {
	block, _ := pem.Decode(chain)
	if block == nil {
		return notAfter, false
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return notAfter, false
	}
	return certificate.NotAfter, true
}

// readAuthorities takes certificates and nothing else: one that is left out unseen would be missed when it is needed.
func readAuthorities(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for n := 0; len(bytes.TrimSpace(text)) > 0; n++ {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" || n == maxChain {
			return nil, fmt.Errorf("trusted_authorities: want at most %d PEM blocks, each a CERTIFICATE", maxChain)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("trusted_authorities: %w", err)
		}
		pool.AddCert(certificate)
		text = rest
	}
	return pool, nil
}

// NewClientCredentials checks and copies what the contract has.
func NewClientCredentials(c *kapselv1.ClientCredentials, clientSecret secret.Secret) (*ClientCredentials, error) {
	u, err := url.Parse(c.TokenUrl)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return nil, errors.New("token_url: want an absolute https URL without user information and fragment")
	}
	if c.ClientId == "" || len(clientSecret.Reveal()) == 0 {
		return nil, errors.New("client_id and client_secret must be set")
	}
	var inBody bool
	switch c.Authentication {
	case kapselv1.ClientAuthentication_CLIENT_AUTHENTICATION_UNSPECIFIED, kapselv1.ClientAuthentication_CLIENT_AUTHENTICATION_BASIC:
	case kapselv1.ClientAuthentication_CLIENT_AUTHENTICATION_BODY:
		inBody = true
	default:
		return nil, fmt.Errorf("client authentication %d is unknown", c.Authentication)
	}
	hash := sha256.New()
	for _, part := range append([]string{c.TokenUrl, c.ClientId, string(clientSecret.Reveal()), c.Audience, fmt.Sprint(inBody)}, c.Scopes...) {
		fmt.Fprintf(hash, "%d:%s", len(part), part)
	}
	return &ClientCredentials{
		TokenURL: c.TokenUrl, ClientID: c.ClientId, ClientSecret: clientSecret, Scopes: c.Scopes, Audience: c.Audience, InBody: inBody,
		Fingerprint: [sha256.Size]byte(hash.Sum(nil)),
	}, nil
}

// credentials are the opened ones of all destinations, by kind; a nil value could not be opened.
type credentials map[uuid.UUID]map[string]*secret.Secret

func openCredentials(rows []store.RouteDestinationCredentialsRow, keys *secret.Keyring) (credentials, []error) {
	opened := make(credentials, len(rows))
	var problems []error
	for _, row := range rows {
		if opened[row.DestinationID] == nil {
			opened[row.DestinationID] = make(map[string]*secret.Secret, 2)
		}
		opened[row.DestinationID][row.Kind] = nil
		plain, err := keys.Unseal(row.Ciphertext, secret.AssociatedData(row.TenantID, row.CredentialID, CredentialPurpose(row.Kind)))
		if err != nil {
			problems = append(problems, fmt.Errorf("%s of destination %s: %w", row.Kind, row.DestinationID, err))
			continue
		}
		opened[row.DestinationID][row.Kind] = &plain
	}
	return opened, problems
}

// compileOutbound sets what a destination asks for beyond a plain request. What cannot be honoured is an error: nothing may
// be sent with less than was asked for.
func compileOutbound(d *Destination, row store.RouteDestinationsRow, opened map[string]*secret.Secret) error {
	for _, value := range opened {
		if value == nil {
			return errUnreadableCredential
		}
	}
	headers, err := compileHeaders(row.Headers, opened[HeadersKind])
	if err != nil {
		return err
	}
	d.Headers = headers
	if row.ClientTls == nil && row.ClientCredentials == nil {
		return nil
	}
	if !strings.HasPrefix(strings.ToLower(d.URL), "https://") {
		return errors.New("client_tls and client_credentials need an https URL")
	}
	take := func(kind string) secret.Secret {
		if value := opened[kind]; value != nil {
			return *value
		}
		return secret.Secret{}
	}
	if row.ClientTls != nil {
		var stored kapselv1.ClientTls
		if err := decode(row.ClientTls, &stored); err != nil {
			return err
		}
		client, _, err := NewClientTLS([]byte(stored.CertificateChain), take(ClientKeyKind).Reveal(), []byte(stored.TrustedAuthorities))
		if err != nil {
			return err
		}
		d.ClientTLS = client
	}
	if row.ClientCredentials != nil {
		var stored kapselv1.ClientCredentials
		if err := decode(row.ClientCredentials, &stored); err != nil {
			return err
		}
		client, err := NewClientCredentials(&stored, take(ClientSecretKind))
		if err != nil {
			return err
		}
		d.ClientCredentials = client
	}
	return nil
}
