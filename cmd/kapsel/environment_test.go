package main

import (
	"slices"
	"testing"
)

func TestMistypedVariablesAreFound(t *testing.T) {
	got := unknownVariables(newRoot(), []string{
		"KAPSEL_DATABASE_URL=x", "KAPSEL_KEEP_PAYLOAD=24h", "KAPSEL_API_KEY=x", "KAPSEL_SECRETS_KEYSET=x", "PATH=/bin", "KAPSEL_TLS_CERTIFICATE=a=b",
		"KAPSEL_SERVICE_HOST=10.0.0.1", "KAPSEL_SERVICE_PORT=80", "KAPSEL_SERVICE_PORT_HTTP=80", "KAPSEL_PORT=tcp://10.0.0.1:80", "KAPSEL_PORT_80_TCP=x",
		"KAPSEL_INGEST_PORT_80_TCP_ADDR=10.0.0.1", "KAPSEL_POSTGRES_BIN=/usr/bin",
	})
	if want := []string{"KAPSEL_KEEP_PAYLOAD", "KAPSEL_TLS_CERTIFICATE"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
