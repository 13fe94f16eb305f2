package server

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

const (
	wellKnownPath = "/.well-known/kapsel-log.json"
	// wellKnownCaching is short beside an overlap of keys, and long beside what a reader would ask for in a loop.
	wellKnownCaching = "public, max-age=300"
)

// wellKnownHandler serves /.well-known/kapsel-log.json: who the log is, its keys, and the hand-overs between them.
type wellKnownHandler struct {
	api    *api
	mu     sync.Mutex
	text   []byte
	readAt time.Time
}

// The document's form is part of the contract (docs/verifying.md).
type wellKnownLog struct {
	ID     string         `json:"id"`
	Origin string         `json:"origin"`
	URL    string         `json:"url"`
	Keys   []wellKnownKey `json:"keys"` // the newest first
}

type wellKnownKey struct {
	VerifierKey string             `json:"verifier_key"`
	CreateTime  time.Time          `json:"create_time"`
	RetireTime  *time.Time         `json:"retire_time,omitempty"`
	Rotation    *wellKnownRotation `json:"rotation,omitempty"` // from the key before it
}

type wellKnownRotation struct {
	LeafIndex int64  `json:"leaf_index"`
	LeafHash  string `json:"leaf_hash"`
	Leaf      string `json:"leaf"`
}

func (h *wellKnownHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := h.latest(r.Context())
	if err != nil {
		h.api.logError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", wellKnownCaching)
	publish(w, r, merkle.LeafHash(text).String()[:32], text)
}

func (h *wellKnownHandler) latest(ctx context.Context) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.text != nil && now.Sub(h.readAt) < checkpointAge {
		return h.text, nil
	}
	keys, err := h.api.logKeys(ctx)
	if err != nil {
		return nil, err
	}
	id := logIDText(h.api.Reader.LogID())
	log := wellKnownLog{ID: id, Origin: h.api.Reader.Origin(), URL: h.api.PublicURL + "/log/" + id, Keys: []wellKnownKey{}}
	for _, key := range keys {
		entry := wellKnownKey{VerifierKey: key.text, CreateTime: key.created, RetireTime: key.retired}
		if r := key.rotation; r != nil {
			entry.Rotation = &wellKnownRotation{r.LeafIndex, merkle.LeafHash(r.Leaf).String(), hex.EncodeToString(r.Leaf)}
		}
		log.Keys = append(log.Keys, entry)
	}
	text, err := json.MarshalIndent(map[string][]wellKnownLog{"logs": {log}}, "", "  ")
	if err != nil {
		return nil, err
	}
	h.text, h.readAt = append(text, '\n'), now
	return h.text, nil
}

// logKey is a key that the log has or had.
type logKey struct {
	text     string
	created  time.Time
	retired  *time.Time     // when it stops or stopped to sign
	rotation *tlog.Rotation // by which the key before it handed over; nil for the first key
}

// logKeys returns the log's keys, those first that are not to retire, the newest first.
func (a *api) logKeys(ctx context.Context) ([]logKey, error) {
	rows, err := a.DB.ListLogKeys(ctx, a.DB.Public(), a.Reader.LogID())
	if err != nil {
		return nil, err
	}
	rotations, err := a.Reader.Rotations(ctx)
	if err != nil {
		return nil, err
	}
	to := make(map[string]*tlog.Rotation)
	for i, rotation := range rotations {
		to[string(rotation.NewKey)] = &rotations[i]
	}
	var keys, retired []logKey
	for i := range rows {
		row := rows[len(rows)-1-i]
		text, err := checkpoint.VerifierKey(a.Reader.Origin(), row.PublicKey)
		if err != nil {
			return nil, err
		}
		key := logKey{text: text, created: row.CreatedAt.UTC(), rotation: to[string(row.PublicKey)]}
		if row.RetiredAt == nil {
			keys = append(keys, key)
			continue
		}
		at := row.RetiredAt.UTC()
		key.retired = &at
		retired = append(retired, key)
	}
	return append(keys, retired...), nil
}
