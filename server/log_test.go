package server

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
)

// fetch makes one request of the log, without the client's own compression and redirects.
func (r *rig) fetch(method, path string, header map[string]string) (*http.Response, []byte) {
	r.t.Helper()
	request := must(http.NewRequestWithContext(r.t.Context(), method, r.url+path, nil))(r.t)
	request.Header.Set("Accept-Encoding", "identity")
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response := must(r.client.Transport.RoundTrip(request))(r.t)
	defer response.Body.Close()
	return response, must(io.ReadAll(response.Body))(r.t)
}

func TestLogIsServedForCachesAndBrowsers(t *testing.T) {
	r := newRig(t)
	r.sealedLog(r.tenant(), 6)
	const tile, checkpoint = "/log/1/tile/0/000.p/3", "/log/1/checkpoint"
	_, hashes := r.fetch("GET", tile, nil)
	for _, path := range []string{tile, checkpoint} {
		got, body := r.fetch("GET", path, nil)
		etag := got.Header.Get("ETag")
		if got.StatusCode != 200 || etag == "" || got.ContentLength != int64(len(body)) || got.Header.Get("Access-Control-Allow-Origin") != "*" ||
			got.Header.Get("Vary") != "Accept-Encoding" || got.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %d %v", path, got.StatusCode, got.Header)
		}
		head, none := r.fetch("HEAD", path, nil)
		if head.StatusCode != 200 || len(none) != 0 || head.ContentLength != int64(len(body)) || head.Header.Get("ETag") != etag ||
			head.Header.Get("Cache-Control") != got.Header.Get("Cache-Control") {
			t.Errorf("HEAD %s: %d %v", path, head.StatusCode, head.Header)
		}
		same, none := r.fetch("GET", path, map[string]string{"If-None-Match": `"x", ` + etag})
		if same.StatusCode != http.StatusNotModified || len(none) != 0 || same.Header.Get("Cache-Control") == "" {
			t.Errorf("%s, not modified: %d %v", path, same.StatusCode, same.Header)
		}
		asked, _ := r.fetch("OPTIONS", path, map[string]string{"Origin": "https://example.com", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "if-none-match"})
		if h := asked.Header; asked.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Methods") != "GET, HEAD" || h.Get("Access-Control-Allow-Headers") != "*" {
			t.Errorf("preflight %s: %d %v", path, asked.StatusCode, asked.Header)
		}
		if posted, _ := r.fetch("POST", path, nil); posted.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(posted.Header.Get("Allow"), "GET") {
			t.Errorf("POST %s: %d %v", path, posted.StatusCode, posted.Header)
		}
		packed, data := r.fetch("GET", path, map[string]string{"Accept-Encoding": "gzip, identity;q=0"})
		if packed.Header.Get("Content-Encoding") != "gzip" || packed.Header.Get("ETag") == etag {
			t.Fatalf("%s, gzip only: %d %v", path, packed.StatusCode, packed.Header)
		}
		if plain := must(io.ReadAll(must(gzip.NewReader(bytes.NewReader(data)))(t)))(t); !bytes.Equal(plain, body) {
			t.Errorf("%s: gzip holds %q", path, plain)
		}
		if refused, _ := r.fetch("GET", path, map[string]string{"Accept-Encoding": "br, *;q=0"}); refused.StatusCode != http.StatusNotAcceptable {
			t.Errorf("%s, brotli only: %d", path, refused.StatusCode)
		}
	}
	part, some := r.fetch("GET", tile, map[string]string{"Range": "bytes=32-63"})
	if part.StatusCode != http.StatusPartialContent || !bytes.Equal(some, hashes[32:64]) {
		t.Errorf("range: %d, %d bytes", part.StatusCode, len(some))
	}
}

// Whatever a path looks like, it is one of the log's own or 404 (or a redirect to the clean path, or 400), and says so to
// browsers; nothing of it is cached.
func TestHostilePathsOfTheLogAreNotFound(t *testing.T) {
	r := newRig(t)
	_, head := r.sealedLog(r.tenant(), 3)
	if head.TreeSize >= 256 {
		t.Fatal("the log is larger than this test takes it for")
	}
	for _, path := range []string{
		"/log/1/tile/0/000.p%2F3", "/log/1/tile/0/%30%30%30.p/3", "/log/1/tile/0%2f000.p/3", "/log/%31/checkpoint", "/log/1/check%70oint",
		"/log/1/tile/0/%2e%2e/%2e%2e/checkpoint", "/log/1/tile/0/000.p/3%00", "/log/1/tile/0/000.p/3/", "/log/1/tile/0/000.p/3%0d%0aX:1", "/log/1/tile/00/000.p/3",
		"/log/1/tile/0/000.p/03", "/log/1/tile/0/x000/000.p/3", "/log/1/tile/0/000.p/256", "/log/1/tile/0/000", "/log/1/tile/1/000", "/log/1/tile/8/000",
		"/log/1/tile/63/x999/x999/x999/999", "/log/1/tile/entries/000", "/log/1/tile/data/000", "/log/1/tile/-1/000", "/log/01/checkpoint", "/log/1/checkpoint/x", "/log/",
		"/log/1/tile/0/" + strings.Repeat("x999/", 2000) + "999", "/log/1/tile/" + strings.Repeat("9", 5000) + "/000", "/log/1/tile/0/٠٠٠",
	} {
		got, body := r.fetch("GET", path, nil)
		if got.StatusCode != http.StatusNotFound || got.Header.Get("Access-Control-Allow-Origin") != "*" || strings.Contains(got.Header.Get("Cache-Control"), "public") || len(body) > 100 {
			t.Errorf("%.80s: %d %v %.50q", path, got.StatusCode, got.Header, body)
		}
	}
	for _, path := range []string{"/log/1/../1/tile/0/000.p/3", "/log/1//tile/0/000.p/3", "//log/1/checkpoint", "/log/1/tile/./0/000.p/3"} {
		if got, _ := r.fetch("GET", path, nil); got.StatusCode/100 != 3 && got.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.StatusCode)
		}
	}
}

func TestAcceptedEncodings(t *testing.T) {
	for header, want := range map[string][2]bool{
		"": {true, false}, "gzip": {true, true}, "identity": {true, false}, "gzip;q=0": {true, false}, "identity;q=0": {false, false}, "*": {true, true},
		"*;q=0": {false, false}, "gzip, *;q=0": {false, true}, "identity;q=0.5, *;q=0": {true, false}, "gzip;q=0.000": {true, false}, "GZIP ; Q=1": {true, true},
		"br, deflate": {true, false}, ",,;q=0,": {true, false}, "identity; q=0, gzip;q=1.0": {false, true},
	} {
		if plain, compressed := acceptedEncodings([]string{header}); [2]bool{plain, compressed} != want {
			t.Errorf("%q: plain %v, gzip %v: want %v", header, plain, compressed, want)
		}
	}
}

func FuzzAcceptedEncodings(f *testing.F) {
	f.Add("gzip, identity;q=0")
	f.Fuzz(func(_ *testing.T, header string) { acceptedEncodings(strings.Split(header, "\n")) })
}
