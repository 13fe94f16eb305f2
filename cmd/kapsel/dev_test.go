package main

import (
	"strings"
	"testing"
)

func TestDevPrintsWhatTheDocumentsAskFor(t *testing.T) {
	dir := t.TempDir()
	var said strings.Builder
	d := demo{URL: "http://127.0.0.1:8080", APIKey: "kps_key", DestinationURL: "http://127.0.0.1:1/echo", PublicKey: "log+1+AQ", SigningSecret: "whsec_c2VjcmV0"}
	if err := d.announce(&said, dir, ""); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"export KAPSEL_URL=http://127.0.0.1:8080 KAPSEL_API_KEY=kps_key\n",
		"export KAPSEL_LOG_PUBLIC_KEY='log+1+AQ' DESTINATION_URL=http://127.0.0.1:1/echo\n",
		" send FILE --data-dir '" + dir + "'\n", " verify proof.json --key 'log+1+AQ'\n",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, said.String())
		}
	}
}
