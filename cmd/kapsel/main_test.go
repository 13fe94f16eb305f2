package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// runCaptured runs the command line and returns its exit code and what it wrote to standard error.
func runCaptured(t *testing.T, args ...string) (int, string) {
	t.Helper()
	return runCapturedUntil(t.Context(), t, args...)
}

func runCapturedUntil(ctx context.Context, t *testing.T, args ...string) (int, string) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = writer
	code := run(ctx, args)
	os.Stderr = stderr
	writer.Close()
	text, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return code, string(text)
}

func TestWrongCallsSayInOneLineWhatToDo(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KAPSEL_DATABASE_URL", "")
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html></html>") }))
	t.Cleanup(page.Close)
	empty := filepath.Join(t.TempDir(), "empty.json")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"sing"}, 2, "unknown command"},
		{[]string{"serve", "--loud"}, 2, "unknown flag"},
		{[]string{"serve"}, 2, "database URL is missing"},
		{[]string{"serve", "--database-url", "postgres://x", "--state-dir", "/x", "--listen", "nowhere"}, 2, "listen address"},
		{[]string{"serve", "--database-url", "postgres://x", "--allow-destinations", "10.0.0.0"}, 2, "--allow-destinations"},
		{[]string{"serve", "--database-url", "postgres://x", "--log-level", "loud"}, 2, "--log-level"},
		{[]string{"serve", "--database-url", "postgres://x", "--keep-payloads", "0"}, 2, "--keep-payloads"},
		{[]string{"serve", "--database-url", "postgres://x", "--state-dir", "/x", "--public-url", "https://a:b@hooks.example.com"}, 2, "public URL"},
		{[]string{"migrate"}, 2, "database URL is missing"},
		{[]string{"migrate", "--database-url", "postgres://127.0.0.1:1/none"}, 1, "migrate"},
		{[]string{"migrate", "--database-url", "not a url"}, 2, "cannot parse"},
		{[]string{"fsck", "--database-url", "postgres://a:secret@h:port/x"}, 2, "cannot parse"},
		{[]string{"listen", "--forward", "localhost:3000"}, 2, "not the URL of an app"},
		{[]string{"health", "nonsense"}, 2, "not an address"},
		{[]string{"dev", "--listen", "here", "--data-dir", filepath.Dir(empty)}, 2, "missing port"},
		{[]string{"dev", "--public-url", "here", "--data-dir", filepath.Dir(empty)}, 2, "public URL"},
		{[]string{"keys"}, 2, "kapsel keys create"},
		{[]string{"completion"}, 2, "for which shell"},
		{[]string{"completion", "dos"}, 2, "unexpected argument \"dos\""},
		{[]string{"keys", "revoke"}, 2, "say which: kapsel keys revoke KEY_ID"},
		{[]string{"keys", "create", "--scope", "all", "--database-url", "postgres://x"}, 2, "there is no \"all\""},
		{[]string{"tenants"}, 2, "kapsel tenants create"},
		{[]string{"tenants", "delete", "tnt_1"}, 2, "--yes"},
		{[]string{"keys", "create", "--database-url", "postgres://x", "--tenant", "acme"}, 2, "--tenant"},
		{[]string{"send"}, 2, "say which: kapsel send FILE"},
		{[]string{"send", "/does/not/exist"}, 2, "no such file"},
		{[]string{"send", empty, "--preset", "smoke", "--ingest-url", "http://127.0.0.1:1/", "--secret", "s"}, 2, "preset"},
		{[]string{"send", empty, "--ingest-url", "http://127.0.0.1:1/ingest/x", "--secret", "s"}, 1, "is a server running there"},
		{[]string{"send", empty, "--ingest-url", "ftp://127.0.0.1/ingest/x", "--secret", "s"}, 2, "not the address of an endpoint"},
		{[]string{"send", empty, "--ingest-url", "http://127.0.0.1:1/ingest/x", "--secret", "s", "--event", "a\r\nB: c"}, 2, "plain text of one line"},
		{[]string{"send", empty, "--data-dir", filepath.Dir(empty)}, 1, "--ingest-url and --secret are needed"},
		{[]string{"send", filepath.Dir(empty)}, 2, "is a directory"},
		{[]string{"replay"}, 2, "nothing is selected"},
		{[]string{"replay", "--all", "--since", "1h"}, 2, "contradict"},
		{[]string{"replay", "--cancel"}, 2, "id of a replay"},
		{[]string{"replay", "evt_1"}, 2, "not the id of a replay"},
		{[]string{"replay", "rpl_1", "--rate", "5"}, 2, "keeps its filter"},
		{[]string{"replay", "--reason", "boredom"}, 2, "there is no \"boredom\""},
		{[]string{"replay", "--since", "yesterday"}, 2, "neither a time"},
		{[]string{"replay", "--all", "--url", "http://127.0.0.1:1", "--api-key", "x"}, 1, "is a server running there"},
		{[]string{"endpoints", "list", "--url", other.URL, "--api-key", "x"}, 1, "is that a Kapsel server's address"},
		{[]string{"endpoints", "list", "--url", page.URL, "--api-key", "x"}, 1, "is that a Kapsel server's address"},
		{[]string{"attempts", "list"}, 2, "give one of --delivery-id, --event-id"},
		{[]string{"endpoints", "create"}, 2, "endpoint is missing"},
		{[]string{"export", "--from", "2030-01-01", "--to", "2020-01-01"}, 2, "start_time must be before end_time"},
		{[]string{"export", "--output", ""}, 2, "name a file"},
		{[]string{"export", "--url", "http://127.0.0.1:1", "--api-key", "x", "--endpoint", "x"}, 2, "not an id of the form ep_"},
		{[]string{"proof", "evt_01m87j6n89fktb8y67hs9n6z5n", "--output="}, 2, "name a file"},
		{[]string{"deadletters", "--failure", "rain"}, 2, "there is no \"rain\""},
		{[]string{"deadletters", "--limit", "-1"}, 2, "--limit"},
		{[]string{"proof", "evt_1"}, 2, "neither the id of an attempt"},
		{[]string{"verify", "/does/not/exist"}, 2, "no such file"},
		{[]string{"verify", empty}, 1, "refused"},
		{[]string{"verify", filepath.Dir(empty)}, 2, "is a directory"},
		{[]string{"verify", empty, "--url", "/log/1"}, 2, "not an address"},
		{[]string{"audit", "log/1"}, 2, "not an address"},
		{[]string{"monitor", "log/1", "--key", "x"}, 2, "not an address"},
		{[]string{"monitor", "http://127.0.0.1:1/log/1", "--key", "x"}, 2, "--key"},
		{[]string{"audit", "http://127.0.0.1:1/log/1", "--key", "x"}, 2, "--key"},
		{[]string{"verify", "main_test.go", "--key", "x"}, 2, "--key"},
		{[]string{"verify", empty, "--key", "no key"}, 2, "key"},
		{[]string{"bench", "--url", "http://127.0.0.1:1"}, 2, "API key"},
	} {
		code, text := runCaptured(t, test.args...)
		if code != test.code || !strings.Contains(text, test.want) {
			t.Errorf("kapsel %s: exit %d, want %d; it said %q, want %q", strings.Join(test.args, " "), code, test.code, text, test.want)
		}
		if lines := strings.Count(text, "\n"); lines != 1 {
			t.Errorf("kapsel %s said %d lines: %q", strings.Join(test.args, " "), lines, text)
		}
	}
}

func TestFlagsComeFromTheEnvironmentUnlessGiven(t *testing.T) {
	t.Setenv("KAPSEL_DATABASE_URL", "postgres://127.0.0.1:1/from_environment")
	if code, text := runCaptured(t, "migrate"); code != 1 || !strings.Contains(text, "from_environment") {
		t.Errorf("exit %d: %q", code, text)
	}
	if _, text := runCaptured(t, "migrate", "--database-url", "postgres://127.0.0.1:1/given"); strings.Contains(text, "from_environment") {
		t.Errorf("the environment wins over the flag: %q", text)
	}
}

// A shell that is set up as the documents say must still be able to start a server: each flag is a variable too.
func TestDocumentsSetNoVariableOfTheServer(t *testing.T) {
	for _, path := range []string{"../../README.md", "../../docs/quickstart.md", "../../docs/verifying.md", "../../docs/cli.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`KAPSEL_[A-Z_]+`).FindAllString(string(text), -1) {
			newDev().Flags().VisitAll(func(flag *pflag.Flag) {
				if environmentName(flag.Name) == name && name != "KAPSEL_DATABASE_URL" { // which is meant for the server
					t.Errorf("%s asks for %s, which is --%s of kapsel dev", path, name, flag.Name)
				}
			})
		}
	}
}
