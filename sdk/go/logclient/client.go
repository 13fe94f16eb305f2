// Package logclient checks a served log over HTTP, C2SP tlog-tiles, without trusting who serves it.
//
// [CheckServed] asks whether the log stands by a proof package, [Monitor] follows a log and finds out when it takes back
// or rewrites what it has said, [Audit] recomputes the whole tree from its tiles. All of them read only the checkpoint and
// tiles, each up to a bound, and need nothing but the log's verifier key, which must come from elsewhere.
//
// The package depends on package verify and nothing else of Kapsel: it works against any log of this kind whose hashes
// are RFC 6962's.
package logclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const (
	tileHeight         = 8
	tileWidth          = 1 << tileHeight
	maxCheckpointBytes = 256 << 10
)

// The checks of this package, as verify.Error names them.
const (
	CheckServedCheckpoint = "served checkpoint" // a trusted key signed it, for the same log
	CheckConsistency      = "consistency"       // the larger tree grew out of the smaller one
)

// Client reads a served log.
type Client struct {
	// HTTP makes the requests; give it a timeout.
	HTTP *http.Client
	// URL is the log's address, such as "https://log.example.com/log/1".
	URL string
	// Keys are the log's verifier keys, "<name>+<key id>+<base64>", from elsewhere than the log. At least one.
	Keys []string
}

// Head reads the log's checkpoint. A *verify.Error means that no trusted key has signed it.
func (c *Client) Head(ctx context.Context) (*verify.Head, error) {
	_, head, err := c.checkpoint(ctx)
	return head, err
}

// checkpoint reads it, and returns it as it is served too. What has no signature at all, such as a page of a proxy, says nothing
// of the log.
func (c *Client) checkpoint(ctx context.Context) (signed string, head *verify.Head, err error) {
	data, err := c.get(ctx, "/checkpoint", maxCheckpointBytes)
	if err == nil && !bytes.Contains(data, []byte("\n\n\u2014 ")) {
		err = errors.New("what is served has no signature: is that a log's address?")
	}
	if err != nil {
		return "", nil, fmt.Errorf("read served checkpoint: %w", err)
	}
	head, err = verify.OpenHead(string(data), c.Keys)
	return string(data), head, err
}

// CheckConsistent checks that newer, which the log serves, has grown out of older, from the log's tiles. A *verify.Error
// means that it has not, any other error that this could not be found out.
func (c *Client) CheckConsistent(ctx context.Context, older, newer *verify.Head) error {
	refuse := func(format string, arguments ...any) error {
		return &verify.Error{Check: CheckConsistency, Reason: fmt.Sprintf(format, arguments...)}
	}
	switch {
	case older.Origin != newer.Origin:
		return refuse("the log is served as %.300q, and was %.300q", newer.Origin, older.Origin)
	case newer.Size < older.Size:
		return refuse("the log is served with %d leaves, and had %d: it was cut back", newer.Size, older.Size)
	case newer.Size == older.Size && newer.Root != older.Root:
		return refuse("the log is served with root %x at size %d, and had %x: it has two versions", newer.Root, newer.Size, older.Root)
	case newer.Size == older.Size, older.Size == 0:
		return nil
	}
	source := &tileSource{ctx: ctx, client: c}
	reader := tlog.TileHashReader(tlog.Tree{N: newer.Size, Hash: newer.Root}, source)
	proof, err := tlog.ProveTree(newer.Size, older.Size, reader)
	if source.err != nil {
		return fmt.Errorf("read served tiles: %w", source.err)
	}
	if err != nil {
		return refuse("the served tiles are not those of the served checkpoint of %d leaves", newer.Size)
	}
	if err := tlog.CheckTree(proof, newer.Size, newer.Root, older.Size, older.Root); err != nil {
		return refuse("the served log of %d leaves did not grow out of the one of %d leaves: it has two versions", newer.Size, older.Size)
	}
	return nil
}

// tileSource implements tlog.TileReader, which has no place for a context.
type tileSource struct {
	ctx    context.Context
	client *Client
	err    error // the first that is not the log's contents' fault
}

func (s *tileSource) Height() int { return tileHeight }

// SaveTiles does nothing: tiles are read once.
func (s *tileSource) SaveTiles([]tlog.Tile, [][]byte) {}

func (s *tileSource) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		var err error
		if data[i], err = s.client.tile(s.ctx, tile); err != nil {
			s.err = err
			return nil, err
		}
	}
	return data, nil
}

func (c *Client) tile(ctx context.Context, tile tlog.Tile) ([]byte, error) {
	want := tile.W * tlog.HashSize
	data, err := c.get(ctx, tilePath(tile), int64(want))
	if errors.Is(err, errNotFound) && tile.W < tileWidth {
		// A partial tile may go once the full one is there, which begins with the same hashes.
		tile.W = tileWidth
		data, err = c.get(ctx, tilePath(tile), int64(tile.W)*tlog.HashSize)
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
func (c *Client) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.URL, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.HTTP.Do(request)
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
