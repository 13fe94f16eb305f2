package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

// CheckServed checks that the log which is served at logURL, such as "https://log.example.com/log/1", still stands by
// the checkpoint of a package that Verify has found to be right: a trusted key has signed the served checkpoint, which is
// of the same log and not smaller; a tree of the same size has the same root, and a larger one is proved, from the served
// tiles, to have grown out of the package's. Whoever keeps two versions of a log cannot pass with both.
//
// Only logURL/checkpoint and the handful of tiles that the proof needs are read, each up to a bound. An *Error means that
// the log does not stand by it, any other that this could not be found out.
func CheckServed(ctx context.Context, client *http.Client, logURL string, p *Package, trustedKeys []string) error {
	keys, err := parseKeys(trustedKeys)
	if err != nil {
		return fmt.Errorf("trusted %w", err)
	}
	if !slices.ContainsFunc(keys, func(k key) bool { return k.name == p.Origin && k.kind == typeEd25519 }) {
		return fmt.Errorf("no trusted key is one of %q: a served checkpoint can't be checked without", p.Origin)
	}
	c, err := p.contents()
	if err != nil {
		return &Error{Check: CheckFormat, Reason: err.Error()}
	}
	source := &tileSource{ctx: ctx, client: client, url: strings.TrimSuffix(logURL, "/")}
	note, err := source.get("/checkpoint", maxNoteBytes)
	if err != nil {
		return fmt.Errorf("read served checkpoint: %w", err)
	}
	served, err := openServed(string(note), p.Origin, keys)
	if err != nil {
		return &Error{Check: CheckServedCheckpoint, Reason: "the served checkpoint " + err.Error()}
	}
	return source.compare(served, p.TreeSize, tlog.Hash(c.root))
}

// The checks of CheckServed.
const (
	CheckServedCheckpoint = "served checkpoint" // a trusted key signed it, for the same log
	CheckConsistency      = "consistency"       // the served log grew out of the package's
)

// openServed opens a checkpoint of the log. Lines of keys that were not given are of no interest here.
func openServed(signed, origin string, keys []key) (head, error) {
	h, lines, err := openCheckpoint(signed, newRing(keys...))
	if err != nil {
		return head{}, err
	}
	if h.origin != origin {
		return head{}, fmt.Errorf("is of log %.300q: want %q", h.origin, origin)
	}
	for _, k := range keys {
		if k.name == origin && find(lines, k, typeEd25519) != nil {
			return h, nil
		}
	}
	return head{}, errors.New("is not signed by a trusted key")
}

func (s *tileSource) compare(served head, size int64, root tlog.Hash) error {
	servedRoot := tlog.Hash(served.root)
	switch {
	case served.size < size:
		return &Error{CheckConsistency, fmt.Sprintf("the log is served with %d leaves, and had %d: it was cut back", served.size, size)}
	case served.size == size && servedRoot != root:
		return &Error{CheckConsistency, fmt.Sprintf("the log is served with root %x at size %d, and had %x: it has two versions", servedRoot[:], size, root[:])}
	case served.size == size:
		return nil
	}
	reader := tlog.TileHashReader(tlog.Tree{N: served.size, Hash: servedRoot}, s)
	tree, err := tlog.ProveTree(served.size, size, reader)
	if s.err != nil {
		return fmt.Errorf("read served tiles: %w", s.err)
	}
	if err != nil {
		return &Error{CheckConsistency, "the served tiles are not those of the served checkpoint"}
	}
	if err := tlog.CheckTree(tree, served.size, servedRoot, size, root); err != nil {
		return &Error{CheckConsistency, fmt.Sprintf("the served log of %d leaves did not grow out of the one of %d leaves: it has two versions", served.size, size)}
	}
	return nil
}

// tileSource reads a served log, C2SP tlog-tiles. It implements tlog.TileReader, which has no place for a context.
type tileSource struct {
	ctx    context.Context
	client *http.Client
	url    string
	err    error // the first that is not the log's contents' fault
}

func (s *tileSource) Height() int { return tileHeight }

// SaveTiles does nothing: tiles are read once.
func (s *tileSource) SaveTiles([]tlog.Tile, [][]byte) {}

func (s *tileSource) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		var err error
		if data[i], err = s.tile(tile); err != nil {
			s.err = err
			return nil, err
		}
	}
	return data, nil
}

func (s *tileSource) tile(tile tlog.Tile) ([]byte, error) {
	want := tile.W * tlog.HashSize
	data, err := s.get(tilePath(tile), int64(want))
	if errors.Is(err, errNotFound) && tile.W < 1<<tileHeight {
		// A partial tile may go once the full one is there, which begins with the same hashes.
		tile.W = 1 << tileHeight
		data, err = s.get(tilePath(tile), int64(tile.W)*tlog.HashSize)
	}
	if err != nil {
		return nil, err
	}
	if len(data) < want {
		return nil, fmt.Errorf("%s has %d bytes: want %d", tilePath(tile), len(data), want)
	}
	return data[:want], nil
}

// tilePath leaves out the height, which tlog writes and C2SP fixes.
func tilePath(tile tlog.Tile) string {
	return "/tile/" + strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight))
}

var errNotFound = errors.New("not found")

// get reads at most limit bytes; a longer answer is an error.
func (s *tileSource) get(path string, limit int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(s.ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("%s: %w", path, errNotFound)
	default:
		return nil, fmt.Errorf("%s: HTTP status %d", path, response.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, nil
}
