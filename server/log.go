package server

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

const (
	// checkpointAge is for how long a checkpoint is served again without asking the database: anyone may ask for it.
	checkpointAge = time.Second

	// Caching of C2SP tlog-tiles: a checkpoint for seconds at most, a tile for good.
	checkpointCaching = "public, max-age=2"
	tileCaching       = "public, max-age=31536000, immutable"
)

// newLogHandler serves /log/{log_id}/checkpoint and /log/{log_id}/tile/{L}/{N}[.p/{W}] (C2SP tlog-tiles), and who the log
// is, to anyone, from pages of any origin too. Entry bundles are not served: leaf bytes are a tenant's.
func newLogHandler(a *api) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /log/{log_id}/checkpoint", &checkpointHandler{api: a})
	mux.HandleFunc("GET /log/{log_id}/tile/{path...}", a.serveTile)
	mux.Handle("GET "+wellKnownPath, &wellKnownHandler{api: a})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("Access-Control-Expose-Headers", "ETag")
		// One tile has one path, so that caches hold it once: an escaped form of it is another.
		if r.URL.RawPath != "" {
			a.logError(w, r, tlog.ErrNotFound)
			return
		}
		if r.Method == http.MethodOptions { // what a browser asks before a request with headers of a page's own
			header.Set("Access-Control-Allow-Methods", "GET, HEAD")
			header.Set("Access-Control-Allow-Headers", "*")
			header.Set("Access-Control-Max-Age", strconv.Itoa(corsMaxAge))
			w.WriteHeader(http.StatusNoContent)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// checkpointHandler serves the latest head as a signed note.
type checkpointHandler struct {
	api    *api
	mu     sync.Mutex
	note   string
	etag   string
	readAt time.Time
}

func (h *checkpointHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	note, etag, err := "", "", error(tlog.ErrNotFound)
	if r.PathValue("log_id") == logIDText(h.api.Reader.LogID()) {
		note, etag, err = h.latest(r)
	}
	if err != nil {
		h.api.logError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", checkpointCaching)
	publish(w, r, etag, []byte(note))
}

// latest reads the note, for all who wait at the same time at once.
func (h *checkpointHandler) latest(r *http.Request) (note, etag string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.note != "" && now.Sub(h.readAt) < checkpointAge {
		return h.note, h.etag, nil
	}
	head, err := h.api.Reader.Head(r.Context())
	if err != nil {
		return "", "", err
	}
	if note, err = h.api.Reader.SignedNote(r.Context(), head); err != nil {
		return "", "", err
	}
	h.note, h.etag, h.readAt = note, merkle.LeafHash([]byte(note)).String()[:32], now
	return h.note, h.etag, nil
}

func (a *api) serveTile(w http.ResponseWriter, r *http.Request) {
	var hashes []byte
	tile, err := merkle.ParsePath("tile/" + r.PathValue("path"))
	if err != nil || r.PathValue("log_id") != logIDText(a.Reader.LogID()) {
		err = tlog.ErrNotFound
	} else {
		hashes, err = a.Reader.Tile(r.Context(), tile)
	}
	if err != nil {
		a.logError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", tileCaching)
	publish(w, r, tile.Path(), hashes) // which never changes under its path
}

// publish answers a GET or HEAD with what anyone may have. Conditions and ranges are those of RFC 9110. Hashes and
// signatures do not get smaller, so they are compressed only for a client that refuses anything else.
func publish(w http.ResponseWriter, r *http.Request, etag string, body []byte) {
	header := w.Header()
	header.Set("Vary", "Accept-Encoding")
	plain, compressed := acceptedEncodings(r.Header["Accept-Encoding"])
	switch {
	case plain:
	case compressed:
		var packed bytes.Buffer
		writer := gzip.NewWriter(&packed)
		writer.Write(body) // to memory: cannot fail
		writer.Close()
		body, etag = packed.Bytes(), etag+"-gzip"
		header.Set("Content-Encoding", "gzip")
	default:
		writeText(w, http.StatusNotAcceptable, "this is served as it is, or with gzip\n")
		return
	}
	header.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptedEncodings reads Accept-Encoding (RFC 9110 section 12.5.3): whether a body may come as it is, and with gzip.
func acceptedEncodings(lines []string) (plain, compressed bool) {
	const unsaid, yes, no = 0, 1, 2
	var identity, gzip, others int
	for item := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		coding, parameters, _ := strings.Cut(item, ";")
		wish := yes
		if weight, found := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(parameters, " ", "")), "q="); found && strings.Trim(weight, "0.") == "" {
			wish = no
		}
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "identity":
			identity = wish
		case "gzip", "x-gzip":
			gzip = wish
		case "*":
			others = wish
		}
	}
	if identity == unsaid {
		identity = others
	}
	if gzip == unsaid {
		gzip = others
	}
	return identity != no, gzip == yes
}

func (a *api) logError(w http.ResponseWriter, r *http.Request, err error) {
	r2 := refusalOf(err)
	switch {
	case errors.Is(err, tlog.ErrNotFound):
		writeText(w, http.StatusNotFound, "not in the published log\n")
	case r.Context().Err() != nil:
		writeText(w, statusClientClosed, "the client went away\n")
	case r2 != nil && r2.retry > 0:
		w.Header().Set("Retry-After", "2")
		writeText(w, http.StatusServiceUnavailable, r2.message+"\n")
	default:
		writeText(w, http.StatusInternalServerError, "internal error; correlation id "+a.logInternal(r.Context(), "log", err)+"\n")
	}
}
