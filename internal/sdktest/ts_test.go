package sdktest

import (
	"os/exec"
	"testing"
)

// The tests of sdk/ts/test need no server.
func TestTypeScriptSDK(t *testing.T) {
	RequireNode(t)
	command := exec.CommandContext(t.Context(), "npm", "test", "--silent")
	command.Dir = tsDirectory
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
}
