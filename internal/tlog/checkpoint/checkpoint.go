// Package checkpoint writes and reads what the log says about itself: C2SP tlog-checkpoint, a signed note over a tree's
// size and root.
//
// A checkpoint of this log carries two signature lines of the log's key, under the log's origin as name: a plain Ed25519
// one (type 0x01) over the tree, and a cosignature/v1 (type 0x04) over the tree and the time. Others, such as witnesses,
// may add lines; those of unknown keys or types are kept and ignored.
//
// The package is pure: the time is passed in, and nothing of Kapsel's is imported but the hashes.
package checkpoint

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

const (
	// maxOriginBytes bounds an origin, which is a URL prefix.
	maxOriginBytes = 255
	// maxNoteBytes bounds a note that is read: three lines and dozens of signatures.
	maxNoteBytes = 64 << 10
)

// Checkpoint is what the log commits to.
type Checkpoint struct {
	Origin string      // the log's name: a URL prefix without scheme and trailing slash
	Size   int64       // number of leaves
	Root   merkle.Hash // root over them
}

// CheckOrigin refuses what cannot be the name of a log's key in a signed note.
func CheckOrigin(origin string) error {
	switch {
	case origin == "":
		return fmt.Errorf("the log's origin is empty")
	case len(origin) > maxOriginBytes:
		return fmt.Errorf("the log's origin has %d bytes: at most %d", len(origin), maxOriginBytes)
	case !isName(origin):
		return fmt.Errorf("the log's origin %q must have no space, control character or plus sign", origin)
	case strings.Contains(origin, "://"), strings.HasSuffix(origin, "/"):
		return fmt.Errorf("the log's origin %q must have no scheme and no trailing slash", origin)
	}
	return nil
}

// isName reports whether a key may have this name (C2SP signed-note), and a terminal may show it.
func isName(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.Contains(name, "+") && !strings.ContainsFunc(name, unicode.IsSpace) &&
		!strings.ContainsFunc(name, unicode.IsControl)
}

// Text returns the three lines that are signed.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// Parse reads a checkpoint's text. Extension lines after the third are allowed by the specification, and ignored.
func Parse(text string) (Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 {
		return Checkpoint{}, fmt.Errorf("a checkpoint has at least three lines, not %d", len(lines)-1)
	}
	c := Checkpoint{Origin: lines[0]}
	if c.Origin == "" {
		return Checkpoint{}, fmt.Errorf("the checkpoint's origin is empty")
	}
	var err error
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.Size < 0 || strconv.FormatInt(c.Size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("the checkpoint's tree size %.30q is not a decimal number", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != merkle.HashSize {
		return Checkpoint{}, fmt.Errorf("the checkpoint's root is not the base64 of %d bytes", merkle.HashSize)
	}
	c.Root = merkle.Hash(root)
	return c, nil
}
