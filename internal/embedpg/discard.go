package embedpg

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Discard removes a data directory with all that is in it, and first ends a server that an earlier
// process left running there. It fails with ErrInUse when the directory has an owner, and touches
// nothing that this package did not make. A directory that is not there is no error.
func Discard(ctx context.Context, dataDir string) error {
	if err := supported(); err != nil {
		return err
	}
	if _, err := os.Lstat(dataDir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	d, err := openDirectory(dataDir, nil)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.endLeftover(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(d.root); err != nil {
		return fmt.Errorf("remove the data directory: %w", err)
	}
	return nil
}
