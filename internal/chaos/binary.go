package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const program = "github.com/kapsel-dev/kapsel/cmd/kapsel"

var built struct {
	once sync.Once
	dir  string
	err  error
}

// Main runs the tests and removes what Binary made. Each test package that uses it needs it as its TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// Binary returns the path of the program, which is built on the first call of a test process.
func Binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "kapsel-chaos-"); built.err != nil {
			return
		}
		output, err := exec.Command("go", "build", "-o", binaryPath(), program).CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("%w\n%s", err, output)
		}
	})
	if built.err != nil {
		t.Fatalf("build %s: %v", program, built.err)
	}
	return binaryPath()
}

func binaryPath() string { return filepath.Join(built.dir, "kapsel") }
