package verify_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kapsel-dev/kapsel/sdk/go/logclient"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// serve serves a log of some size as C2SP tlog-tiles, until the test ends. Partial tiles only of that size.
func serve(t *testing.T, l *testLog, size int64) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /log/1/checkpoint", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(l.checkpoint(t, size)))
	})
	mux.HandleFunc("GET /log/1/tile/{path...}", func(w http.ResponseWriter, r *http.Request) {
		tile, err := tlog.ParseTilePath("tile/8/" + r.PathValue("path"))
		if err != nil || tile.W < 256 && int64(tile.W) != size>>(8*tile.L)-tile.N<<8 {
			http.NotFound(w, r)
			return
		}
		data, err := tlog.ReadTileData(tile, l)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(data)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + "/log/1"
}

func checkServed(url string, p *verify.Package, l *testLog) error {
	return logclient.CheckServed(context.Background(), http.DefaultClient, url, p, []string{l.verifierKey()})
}

func TestServedLogStandsByThePackage(t *testing.T) {
	l := attemptLog(t)
	l.fill(t, 1000)
	for _, from := range []int64{13, 40, 256, 300, 512, 999, 1000} {
		p := l.pack(t, 12, from)
		for _, size := range []int64{from, 512, 777, 1000} {
			if size < from {
				continue
			}
			if err := checkServed(serve(t, l, size), p, l); err != nil {
				t.Errorf("package at %d, served at %d: %v", from, size, err)
			}
		}
	}
}

func TestServedLogThatDoesNotStandByThePackage(t *testing.T) {
	l := attemptLog(t)
	l.fill(t, 600)
	p := l.pack(t, 12, 40)

	fork := newLog(testOrigin, 1)
	fork.add(t, []byte("another beginning"))
	fork.fill(t, 600)
	stranger := newLog(testOrigin, 5)
	stranger.fill(t, 600)
	elsewhere := newLog("log.example.com/log/2", 1)
	elsewhere.fill(t, 600)

	for _, c := range []struct {
		name   string
		log    *testLog
		size   int64
		check  string
		reason string
	}{
		{"cut back", l, 39, logclient.CheckConsistency, "cut back"},
		{"fork of the same size", fork, 40, logclient.CheckConsistency, "two versions"},
		{"fork of a larger size", fork, 600, logclient.CheckConsistency, "two versions"},
		{"another key", stranger, 600, logclient.CheckServedCheckpoint, "no trusted key has signed"},
		{"another log", elsewhere, 600, logclient.CheckServedCheckpoint, "no trusted key has signed"},
	} {
		var refused *verify.Error
		err := checkServed(serve(t, c.log, c.size), p, l)
		if !errors.As(err, &refused) || refused.Check != c.check || !strings.Contains(refused.Reason, c.reason) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestServedTilesOfAnotherTree(t *testing.T) {
	l, fork := attemptLog(t), newLog(testOrigin, 1)
	l.fill(t, 600)
	fork.fill(t, 600)
	url, tiles := serve(t, l, 600), serve(t, fork, 600)
	mixed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/checkpoint") {
			http.Redirect(w, r, url+"/checkpoint", http.StatusFound)
			return
		}
		http.Redirect(w, r, tiles+r.URL.Path, http.StatusFound)
	}))
	defer mixed.Close()
	var refused *verify.Error
	if err := checkServed(mixed.URL, l.pack(t, 12, 40), l); !errors.As(err, &refused) || refused.Check != logclient.CheckConsistency {
		t.Fatalf("got %v", err)
	}
}

// What cannot be found out must not look like a log that cheats.
func TestServedLogThatCannotBeRead(t *testing.T) {
	l := attemptLog(t)
	l.fill(t, 600)
	p := l.pack(t, 12, 40)
	url := serve(t, l, 600)
	noTiles := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/checkpoint" {
			http.Redirect(w, r, url+"/checkpoint", http.StatusFound)
			return
		}
		http.NotFound(w, r)
	}))
	defer noTiles.Close()
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	defer endless.Close()
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, err := range map[string]error{
		"no log":    checkServed(noTiles.URL+"/elsewhere", p, l),
		"no tiles":  checkServed(noTiles.URL, p, l),
		"endless":   checkServed(endless.URL, p, l),
		"no key":    logclient.CheckServed(context.Background(), http.DefaultClient, url, p, nil),
		"cancelled": logclient.CheckServed(cancelled, http.DefaultClient, url, p, []string{l.verifierKey()}),
	} {
		var refused *verify.Error
		if err == nil || errors.As(err, &refused) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
