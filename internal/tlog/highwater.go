package tlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/kapsel-dev/kapsel/internal/durable"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// HighWater remembers, outside the database, the largest tree that this node has signed, or has seen published. A database that
// was restored from a backup knows nothing of the heads signed since; signing on from there would fork the log, which
// nobody can repair. It is for one process at a time: each node has its own file.
type HighWater struct {
	path   string
	origin string
	mark   *checkpoint.Checkpoint // nil: nothing was signed yet
}

// markFile is the file's content.
type markFile struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   []byte `json:"root"` // base64
}

// OpenHighWater reads the file, which need not exist, and makes sure that it is of the log with this origin.
func OpenHighWater(path, origin string) (*HighWater, error) {
	h := &HighWater{path: path, origin: origin}
	text, err := durable.ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read high-water mark: %w", err)
	}
	var file markFile
	if err := json.Unmarshal(text, &file); err != nil || file.Size < 0 || len(file.Root) != merkle.HashSize {
		return nil, fmt.Errorf("%w: the high-water file %s is damaged: restore it; or, if you are sure that this database has "+
			"not been restored from a backup since its last tree head, remove the file", ErrRefused, path)
	}
	if file.Origin != origin {
		return nil, fmt.Errorf("%w: the high-water file %s is of log %q, but this log is %q: one key and one high-water file "+
			"belong to one log, so give this log a key of its own; after kapsel keys restart-log, rename this file on every node", ErrRefused, path, file.Origin, origin)
	}
	h.mark = &checkpoint.Checkpoint{Origin: origin, Size: file.Size, Root: merkle.Hash(file.Root)}
	return h, nil
}

// Mark returns what was signed last, and false if nothing was.
func (h *HighWater) Mark() (checkpoint.Checkpoint, bool) {
	if h.mark == nil {
		return checkpoint.Checkpoint{}, false
	}
	return *h.mark, true
}

// check refuses a tree below the mark, or another one of the same size.
func (h *HighWater) check(c checkpoint.Checkpoint) error {
	switch {
	case h.mark == nil || c.Size > h.mark.Size || c == *h.mark:
		return nil
	case c.Size == h.mark.Size:
		return h.refuse("a tree of %d leaves with root %s was signed, but the database's has root %s", c.Size, h.mark.Root, c.Root)
	default:
		return h.refuse("a tree of %d leaves was signed, but the database holds only %d", h.mark.Size, c.Size)
	}
}

// advance puts the mark on disk. It is called when c is signed and before anybody may see it.
func (h *HighWater) advance(c checkpoint.Checkpoint) error {
	if err := h.check(c); err != nil {
		return err
	}
	if h.mark != nil && c == *h.mark {
		return nil
	}
	text, err := json.Marshal(markFile{Origin: c.Origin, Size: c.Size, Root: c.Root[:]})
	if err != nil {
		return fmt.Errorf("encode high-water mark: %w", err)
	}
	if err := durable.Replace(h.path, append(text, '\n')); err != nil {
		return fmt.Errorf("write high-water mark: %w", err)
	}
	h.mark = &c
	return nil
}

// refuse says what is wrong, and what can be done about it.
func (h *HighWater) refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s (high-water file %s). The database was probably restored from a backup or lost committed data; "+
		"signing on would fork log %q. Restore a newer state of the database; if there is none, keep this one, its key and this "+
		"file as evidence, and go on with a new log: kapsel keys restart-log", ErrRefused, fmt.Sprintf(format, args...), h.path, h.origin)
}
