package logclient

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// CheckServed checks that the log which is served at logURL, such as "https://log.example.com/log/1", still stands by
// the checkpoint of a package that verify.Verify has found to be right: a trusted key has signed the served checkpoint,
// which is of the same log and not smaller; a tree of the same size has the same root, and a larger one is proved, from
// the served tiles, to have grown out of the package's. Whoever keeps two versions of a log cannot pass with both.
//
// A *verify.Error means that the log does not stand by it, any other that this could not be found out.
func CheckServed(ctx context.Context, client *http.Client, logURL string, p *verify.Package, trustedKeys []string) error {
	if !slices.ContainsFunc(trustedKeys, func(key string) bool { return strings.HasPrefix(key, p.Origin+"+") }) {
		return fmt.Errorf("no trusted key is one of %q: a served checkpoint can't be checked without", p.Origin)
	}
	packaged := &verify.Head{Origin: p.Origin, Size: p.TreeSize}
	if n, err := hex.Decode(packaged.Root[:], []byte(p.RootHash)[:min(len(p.RootHash), 2*len(packaged.Root))]); err != nil || n != len(packaged.Root) {
		return &verify.Error{Check: verify.CheckFormat, Reason: "root_hash is not a hash"}
	}
	c := &Client{HTTP: client, URL: logURL, Keys: trustedKeys}
	served, err := c.Head(ctx)
	if refused := (*verify.Error)(nil); errors.As(err, &refused) {
		return &verify.Error{Check: CheckServedCheckpoint, Reason: "the served checkpoint: " + refused.Reason}
	}
	if err != nil {
		return err
	}
	if served.Origin != p.Origin {
		return &verify.Error{Check: CheckServedCheckpoint, Reason: fmt.Sprintf("the served checkpoint is of log %.300q: want %q", served.Origin, p.Origin)}
	}
	return c.CheckConsistent(ctx, packaged, served)
}
