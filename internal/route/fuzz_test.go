package route

import (
	"testing"

	"github.com/kapsel-dev/kapsel/internal/certtest"
)

// PEM of a tenant is read or refused.
func FuzzClientTLS(f *testing.F) {
	ca := certtest.New(f)
	pair := ca.Issue(f, "a.example.com")
	f.Add(pair.Certificate, pair.Key, ca.PEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"), []byte(nil), []byte("x"))
	f.Fuzz(func(t *testing.T, chain, key, authorities []byte) {
		client, _, err := NewClientTLS(chain, key, authorities)
		if err == nil && (len(chain) > 0) != (len(client.Config.Certificates) == 1) {
			t.Fatal("a certificate was dropped")
		}
		if err == nil && (len(authorities) > 0) != (client.Config.RootCAs != nil) && len(authorities) > 0 {
			t.Fatal("authorities were dropped")
		}
		ChainEnds(chain)
	})
}
