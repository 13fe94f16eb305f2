package sdktest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/chaos"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// A page of another origin, in a real browser, does what the quickstart does, over Connect and over gRPC-Web, streams and listening included.
func testBrowser(t *testing.T, s *scene) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium: install it (on a Debian: apt-get install chromium) to test the SDK in a browser")
	}
	dir := s.typeScript(t)
	copyFile(t, "testdata/page.mjs", dir)
	bundled := filepath.Join(dir, "page.js")
	run(t, dir, nil, absolute(t, filepath.Join(tsDirectory, "node_modules", ".bin", "esbuild")), "page.mjs", "--bundle", "--format=esm", "--outfile="+bundled)
	s.pages.HandleFunc("/page.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, bundled) })
	s.pages.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!doctype html><title>page</title><script type="module" src="/page.js"></script>`)
	})
	dev, sink := s.dev, chaos.NewSink(t)
	for _, protocol := range []string{"connect", "grpc-web"} {
		t.Run(protocol, func(t *testing.T) {
			given := url.Values{"url": {dev.Ready.URL}, "key": {dev.Ready.APIKey}, "log": {dev.Ready.PublicKey}, "destination": {sink.URL}, "protocol": {protocol}}
			said := run(t, ".", nil, "node", "testdata/browser.mjs", absolute(t, filepath.Join(tsDirectory, "node_modules", "playwright-core", "index.js")), chromium,
				s.origin+"/#"+given.Encode())
			var outcome struct {
				States, Heard, Proofs []string
				Heads                 int64
				Reason, Error         string
			}
			if err := json.Unmarshal([]byte(said), &outcome); err != nil || outcome.Error != "" {
				t.Fatalf("%v: %s", err, said)
			}
			if !slices.Contains(outcome.States, "DELIVERED") || !slices.Equal(outcome.Heard, []string{"from a page"}) || outcome.Heads < 1 || outcome.Reason != "EVENT_NOT_FOUND" {
				t.Errorf("got %+v", outcome)
			}
			if len(outcome.Proofs) != 2 { // of the destination's attempt, and of the page's own
				t.Errorf("%d proofs, want 2", len(outcome.Proofs))
			}
			for _, proof := range outcome.Proofs {
				if report, err := verify.Verify([]byte(proof), verify.Options{TrustedKeys: []string{dev.Ready.PublicKey}}); err != nil || !report.Full {
					t.Errorf("the package does not verify: %v", err)
				}
			}
		})
	}
}
