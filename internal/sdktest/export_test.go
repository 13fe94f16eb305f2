package sdktest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/chaos"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const (
	// exported proof packages: the server sends up to 100 in one message.
	exported = 250
	// breakAfter is in the second message, of some 3 kB a package.
	breakAfter = 450_000
)

// breakingProxy passes on what a server answers, and breaks the first stream of an export off in its middle.
type breakingProxy struct {
	http.Handler
	mu      sync.Mutex
	streams int
	broken  bool
}

func startBreakingProxy(t *testing.T, target string) (proxy *breakingProxy, address string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(u)
	forward.FlushInterval = -1
	proxy = &breakingProxy{Handler: forward}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return proxy, server.URL
}

func (p *breakingProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/ExportProofPackages") {
		r.Header.Del("Connect-Accept-Encoding") // so that breakAfter is where it should be
		p.mu.Lock()
		p.streams++
		if p.streams == 1 {
			w = &breakingWriter{ResponseWriter: w, proxy: p}
		}
		p.mu.Unlock()
	}
	p.Handler.ServeHTTP(w, r)
}

type breakingWriter struct {
	http.ResponseWriter
	proxy *breakingProxy
	sent  int
}

func (w *breakingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *breakingWriter) Write(data []byte) (int, error) {
	if w.sent += len(data); w.sent > breakAfter {
		w.proxy.mu.Lock()
		w.proxy.broken = true
		w.proxy.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(data)
}

// An export that breaks off goes on where it was, in both SDKs: each leaf comes once, in the order of the log, and verifies.
func testExport(t *testing.T, s *scene) {
	ctx, dev, sink := t.Context(), s.dev, chaos.NewSink(t)
	client := goClient(t, dev.Ready.URL, dev)
	route, err := client.CreateRoute(ctx, new(kapselv1.Endpoint), &kapselv1.Destination{Url: sink.URL})
	if err != nil {
		t.Fatal(err)
	}
	batch := new(kapselv1.IngestBatchRequest)
	for range exported - 1 {
		batch.Webhooks = append(batch.Webhooks, &kapselv1.IngestRequest{EndpointId: route.Endpoint.Id, Payload: []byte("{}")})
	}
	response, err := client.Ingest.IngestBatch(ctx, batch)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range response.Results {
		event, err := client.WaitForEvent(ctx, result.GetReceipt().GetEventId())
		if err != nil || event.State != kapselv1.EventState_EVENT_STATE_DELIVERED {
			t.Fatalf("%v: %v", event, err)
		}
	}
	// When the last one is sealed, all are that were recorded before.
	last, err := client.IngestAndWait(ctx, &kapselv1.IngestRequest{EndpointId: route.Endpoint.Id, Payload: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetVerifiedProofs(ctx, last.Id, dev.Ready.PublicKey); err != nil {
		t.Fatal(err)
	}
	request := &kapselv1.ExportProofPackagesRequest{
		Recorded: &kapselv1.TimeRange{StartTime: timestamppb.New(route.Endpoint.CreateTime.AsTime())}, EndpointId: route.Endpoint.Id,
	}

	check := func(t *testing.T, proxy *breakingProxy, packages [][]byte) {
		t.Helper()
		before := int64(-1)
		for _, data := range packages {
			report, err := verify.Verify(data, verify.Options{TrustedKeys: []string{dev.Ready.PublicKey}})
			if err != nil || !report.Full || report.Package.LeafIndex <= before {
				t.Fatalf("after leaf %d: %v", before, err)
			}
			before = report.Package.LeafIndex
		}
		if len(packages) != exported {
			t.Errorf("%d packages, want %d", len(packages), exported)
		}
		if !proxy.broken || proxy.streams != 2 {
			t.Errorf("broken %v, %d streams: the test did not test anything", proxy.broken, proxy.streams)
		}
	}
	t.Run("archive", func(t *testing.T) {
		dir := s.typeScript(t)
		copyFile(t, "testdata/archive.mjs", dir)
		archive := filepath.Join(dir, "proofs.tar.gz")
		code, _, stderr := chaos.Run(t, "export", "--endpoint", route.Endpoint.Id, "--url", dev.Ready.URL, "--api-key", dev.Ready.APIKey, "-o", archive)
		if code != 0 {
			t.Fatalf("kapsel export: exit %d: %s", code, stderr)
		}
		said := run(t, dir, nil, "node", "archive.mjs", archive, dev.Ready.PublicKey)
		if want := fmt.Sprintf("full proof of %d delivered\n", exported); said != want {
			t.Errorf("it is a %q, want %q", said, want)
		}
	})
	t.Run("Go", func(t *testing.T) {
		proxy, address := startBreakingProxy(t, dev.Ready.URL)
		var packages [][]byte
		for p, err := range goClient(t, address, dev).ExportProofPackages(ctx, request, kapsel.Stream{}) {
			if err != nil {
				t.Fatal(err)
			}
			packages = append(packages, p.Json)
		}
		check(t, proxy, packages)
	})
	t.Run("TypeScript", func(t *testing.T) {
		dir := s.typeScript(t)
		copyFile(t, "testdata/export.mjs", dir)
		proxy, address := startBreakingProxy(t, dev.Ready.URL)
		said := run(t, dir, nil, "node", "export.mjs", address, dev.Ready.APIKey, route.Endpoint.Id)
		var packages [][]byte
		for lines := bufio.NewScanner(strings.NewReader(said)); lines.Scan(); {
			var data []byte
			if err := json.Unmarshal(lines.Bytes(), &data); err != nil {
				t.Fatal(err)
			}
			packages = append(packages, data)
		}
		check(t, proxy, packages)
	})
}
