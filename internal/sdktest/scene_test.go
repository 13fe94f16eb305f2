package sdktest

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/chaos"
)

// scene is what the tests share, since it takes its time: a server, the packed TypeScript SDK, and an origin whose pages may
// call the server.
type scene struct {
	dev     *chaos.Dev
	packed  string // directory of the TypeScript SDK; "": it cannot be had
	problem string // why not
	origin  string
	pages   *http.ServeMux
}

// typeScript is the directory in which the packed SDK is installed, or the test is skipped.
func (s *scene) typeScript(t *testing.T) string {
	t.Helper()
	if s.packed == "" {
		t.Skip(s.problem)
	}
	return s.packed
}

// The SDKs as their users have them, against the real server.
func TestPackedSDKs(t *testing.T) {
	s := &scene{pages: http.NewServeMux()}
	pages := httptest.NewServer(s.pages)
	t.Cleanup(pages.Close)
	s.origin = pages.URL
	s.dev = chaos.StartDev(t, chaos.FreeAddress(t, chaos.NewRandom(t)), "--cors-origins", s.origin)
	if s.problem = nodeProblem(t); s.problem == "" {
		s.packed, s.problem = packTypeScript(t)
	}
	t.Run("quickstart", func(t *testing.T) { testQuickstart(t, s) })
	t.Run("helpers", func(t *testing.T) { testHelpers(t, s) })
	t.Run("export", func(t *testing.T) { testExport(t, s) })
	t.Run("deliveries verify", func(t *testing.T) { testDeliveriesVerify(t, s) })
	t.Run("browser", func(t *testing.T) { testBrowser(t, s) })
	// The last ones restart the server.
	t.Run("listening goes on across restarts", func(t *testing.T) { testListening(t, s) })
	t.Run("streams go on across restarts", func(t *testing.T) { testStreamsGoOnAcrossRestarts(t, s) })
}
