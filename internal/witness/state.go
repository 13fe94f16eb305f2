package witness

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/kapsel-dev/kapsel/internal/durable"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// seen is the last checkpoint of a log that was cosigned.
type seen struct {
	checkpoint.Checkpoint
	note string // as the log signed it, which is evidence if the log ever shows another one
}

// stateDir keeps a file a log. What is put is on disk when put returns.
type stateDir string

type stateFile struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Root       []byte `json:"root"` // base64
	Checkpoint string `json:"checkpoint"`
}

func (d stateDir) path(origin string) string {
	return filepath.Join(string(d), fmt.Sprintf("%x.json", sha256.Sum256([]byte(origin))))
}

// get returns what was cosigned last: of a log that was not seen yet, the empty tree. A damaged file is an error, never an
// empty tree, since that would let a log begin anew.
func (d stateDir) get(origin string) (seen, error) {
	path := d.path(origin)
	text, err := durable.ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return seen{Checkpoint: checkpoint.Checkpoint{Origin: origin, Root: merkle.EmptyRoot}}, nil
	}
	if err != nil {
		return seen{}, fmt.Errorf("read state of %q: %w", origin, err)
	}
	var file stateFile
	if err := json.Unmarshal(text, &file); err != nil || file.Origin != origin || file.Size < 0 || len(file.Root) != merkle.HashSize {
		return seen{}, fmt.Errorf("the state of log %q is damaged: restore %s; without it this witness could cosign a fork", origin, path)
	}
	return seen{checkpoint.Checkpoint{Origin: origin, Size: file.Size, Root: merkle.Hash(file.Root)}, file.Checkpoint}, nil
}

func (d stateDir) put(s seen) error {
	text, err := json.Marshal(stateFile{s.Origin, s.Size, s.Root[:], s.note})
	if err == nil {
		err = durable.Replace(d.path(s.Origin), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write state of %q: %w", s.Origin, err)
	}
	return nil
}
