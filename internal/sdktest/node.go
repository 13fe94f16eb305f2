package sdktest

import (
	"errors"
	"os/exec"
	"testing"
)

// tsDirectory is the TypeScript SDK, seen from here.
const tsDirectory = "../../sdk/ts"

// noNode is the status of tools/node-modules.sh where there is no Node.js to use.
const noNode = 3

// RequireNode brings the npm packages of the TypeScript SDK to what its lock file says. It skips the test where there is no
// Node.js, or where npm cannot fetch them.
func RequireNode(t testing.TB) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "../../tools/node-modules.sh", "sdk/ts").CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if exit.ExitCode() == noNode {
			t.Skip("there is no Node.js 20 or later with npm: install it to test the TypeScript SDK")
		}
		t.Skipf("npm cannot fetch the packages of sdk/ts: %v\n%s", err, output)
	}
	if err != nil {
		t.Fatalf("look for Node.js: %v", err)
	}
}
