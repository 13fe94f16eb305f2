package server

import (
	"errors"
	"net/http"
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

// checkpointHandler serves /log/{log_id}/checkpoint: the latest head as a signed note.
type checkpointHandler struct {
	api    *api
	mu     sync.Mutex
	note   string
	readAt time.Time
}

func (h *checkpointHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	note, err := "", error(tlog.ErrNotFound)
	if r.PathValue("log_id") == logIDText(h.api.Reader.LogID()) {
		note, err = h.latest(r)
	}
	if err != nil {
		h.api.logError(w, r, err)
		return
	}
	publish(w, "text/plain; charset=utf-8", checkpointCaching, []byte(note))
}

// latest reads the note, for all who wait at the same time at once.
func (h *checkpointHandler) latest(r *http.Request) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.note != "" && now.Sub(h.readAt) < checkpointAge {
		return h.note, nil
	}
	head, err := h.api.Reader.Head(r.Context())
	if err != nil {
		return "", err
	}
	note, err := h.api.Reader.SignedNote(r.Context(), head)
	if err != nil {
		return "", err
	}
	h.note, h.readAt = note, now
	return note, nil
}

// serveTile serves /log/{log_id}/tile/{L}/{N}[.p/{W}]. Entry bundles are not served: leaf bytes are a tenant's.
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
	publish(w, "application/octet-stream", tileCaching, hashes)
}

// publish serves what anyone may have, from a page of any origin too.
func publish(w http.ResponseWriter, contentType, caching string, body []byte) {
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", caching)
	header.Set("Access-Control-Allow-Origin", "*")
	w.Write(body)
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
