package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// openTerminal opens a pseudo-terminal (pty(7)): what is written to it can be read once it is closed.
func openTerminal(t *testing.T) (terminal *os.File, read func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(master) // ends with EIO
		said <- string(text)
	}()
	return terminal, func() string { terminal.Close(); return <-said }
}

// Whatever takes long shows how far it is on a terminal, and takes that away at its end; where standard error is none, and on standard
// output, there is nothing of it.
func TestLongWorkShowsItsProgressOnATerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	url, databaseURL := service(t)
	key := mustSay(t, "keys", "create", "--database-url", databaseURL)
	client := newClient(url, key)
	destination := &kapselv1.Destination{Url: refusingURL, RetryPolicy: &kapselv1.RetryPolicy{MaxAttempts: 1}}
	way, err := createBenchWay(t.Context(), client, destination, kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_NONE)
	if err != nil {
		t.Fatal(err)
	}
	event := mustSay(t, "events", "ingest", way.endpoint, "--payload", "{}", "--url", url, "--api-key", key)
	mustSay(t, "proof", regexp.MustCompile(`evt_\w+`).FindString(event), "--url", url, "--api-key", key, "--wait", "1m")
	log, err := client.attestation.GetLog(t.Context(), &kapselv1.GetLogRequest{})
	if err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		args string
		want string // what is shown, a regular expression
	}{
		{"replay --all --wait --output=json", `\[[#.]{30}\] \d+ of \d+ dead letters|\d+ dead letters`},
		{"export", `\d+ proofs`},
		{"audit --api-key " + key + " " + url + "/log/1 --key " + log.Log.Keys[0].VerifierKey, `\[[#.]{30}\] \d+ of \d+ leaves.*\d+ proof packages`},
		{"bench --duration 1s --warmup 1s --rate 20 --json", `(?s)\[[#.]{30}\] 0 of 1 s of warm-up.*\[[#.]{30}\] 0 of 1 s of load.*\d+ of \d+ webhooks sealed.*\[[#.]{30}\] 0 of 200 proofs`},
	} {
		name, _, _ := strings.Cut(test.args, " ")
		t.Run(name, func(t *testing.T) {
			execute := func(stderr io.Writer) (stdout []byte) {
				t.Helper()
				var out bytes.Buffer
				root := newRoot()
				root.SetOut(&out)
				root.SetErr(stderr)
				args := strings.Fields(test.args)
				if name != "audit" {
					args = append(args, "--url", url, "--api-key", key)
				}
				root.SetArgs(args)
				if err := root.ExecuteContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				return out.Bytes()
			}
			terminal, read := openTerminal(t)
			stdout := execute(terminal)
			shown := read()
			if !regexp.MustCompile(test.want).MatchString(shown) {
				t.Errorf("the terminal got %q, want %s", shown, test.want)
			}
			if at := strings.LastIndex(shown, "\x1b[K"); strings.ContainsAny(shown[at+len("\x1b[K"):], "[#") {
				t.Errorf("progress is left on the terminal: %q", shown)
			}
			if strings.HasSuffix(test.args, "json") && !json.Valid(stdout) {
				t.Errorf("standard output is not JSON: %q", stdout)
			}
			if name == "replay" {
				return // there is nothing left to replay
			}
			var pipe bytes.Buffer
			if execute(&pipe); strings.Contains(pipe.String(), "\x1b") {
				t.Errorf("a pipe got %q", pipe.String())
			}
		})
	}
}
