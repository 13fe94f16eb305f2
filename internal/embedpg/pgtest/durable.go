package pgtest

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/embedpg"
)

// Durable starts a server of the test's own, on a disk and with every guarantee on, for tests that kill or
// restart it. It is always a local one, whatever KAPSEL_TEST_DATABASE_URL says, and ends with the test.
func Durable(t testing.TB) *embedpg.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	dir, err := makeDirectory(ctx, diskDirectory())
	if err != nil {
		t.Fatalf("prepare a durable server: %v", err)
	}
	server, err := embedpg.Start(ctx, embedpg.Config{DataDir: dir, Durable: true})
	if err != nil {
		t.Fatalf("start a durable server: %v", errors.Join(err, os.RemoveAll(dir)))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
		defer cancel()
		if err := errors.Join(server.Stop(ctx), os.RemoveAll(dir)); err != nil {
			t.Errorf("stop the durable server: %v", err)
		}
	})
	return server
}
