package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// rpcElsewhere has the command of each other rpc.
var rpcElsewhere = map[string]string{
	"IngestService/IngestBatch":              "bench",
	"EventService/WatchEvents":               "tail",
	"DeliveryService/ListDeadLetters":        "deadletters",
	"DeliveryService/ReplayDeadLetters":      "replay",
	"AttestationService/GetProofPackage":     "proof",
	"AttestationService/ExportProofPackages": "export",
	"AttestationService/SealLog":             "seal",
	"TenantService/CreateTenant":             "tenants create",
	"TenantService/ListTenants":              "tenants list",
	"TenantService/DeleteTenant":             "tenants delete",
	"TenantService/CreateApiKey":             "keys create",
	"TenantService/ListApiKeys":              "keys list",
	"TenantService/RevokeApiKey":             "keys revoke",
	"ListenService/Listen":                   "listen",
	"ListenService/Report":                   "listen",
}

func TestEachRPCHasACommand(t *testing.T) {
	has := make(map[string]bool)
	for _, spec := range rpcCommands {
		if has[spec.rpc] {
			t.Errorf("%s has two commands", spec.rpc)
		}
		has[spec.rpc] = true
	}
	root := newRoot()
	for rpc, path := range rpcElsewhere {
		if has[rpc] {
			t.Errorf("%s has two commands", rpc)
		}
		has[rpc] = true
		if found, rest, err := root.Find(strings.Fields(path)); err != nil || len(rest) > 0 || !found.Runnable() {
			t.Errorf("%s: there is no command %q", rpc, path)
		} else if found.Flags().ShorthandLookup("o") == nil && path != "bench" {
			t.Errorf("%s: kapsel %s has no --output", rpc, path)
		}
	}
	for _, file := range contractFiles {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				if name := string(service.Name()) + "/" + string(service.Methods().Get(j).Name()); !has[name] {
					t.Errorf("%s has no command: add it to rpcCommands", name)
				}
			}
		}
	}
}

// eachCommand calls f for each command that does something.
func eachCommand(f func(path []string, cmd *cobra.Command)) {
	var walk func([]string, *cobra.Command)
	walk = func(path []string, cmd *cobra.Command) {
		if cmd.Runnable() {
			f(path, cmd)
		}
		for _, sub := range cmd.Commands() {
			walk(append(path[:len(path):len(path)], sub.Name()), sub)
		}
	}
	walk(nil, newRoot())
}

func TestEachCommandExplainsItself(t *testing.T) {
	eachCommand(func(path []string, cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("kapsel %s has no text in the help", strings.Join(path, " "))
		}
		if cmd.Annotations[rpcAnnotation] != "" && cmd.Example == "" {
			t.Errorf("kapsel %s has no example", strings.Join(path, " "))
		}
		cmd.Flags().VisitAll(func(flag *pflag.Flag) {
			if flag.Usage == "" {
				t.Errorf("kapsel %s: --%s has no text in the help", strings.Join(path, " "), flag.Name)
			}
		})
	})
}

const hostile = "\x1b[2J\u202e☃'\"; drop table events; --\n\t\r$(reboot)"

// Every command, called wrongly in every way that does not depend on what it does: exit code 2, one line, no stack.
func TestHostileCallsOfEveryCommandSayInOneLineWhatIsWrong(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("KAPSEL_DATABASE_URL", "")
	many := make([]string, 30)
	for i := range many {
		many[i] = hostile
	}
	refused := func(args ...string) {
		t.Helper()
		code, text := runCaptured(t, args...)
		if code != 2 || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "kapsel: ") || len(text) < len("kapsel: xxxxx") {
			t.Errorf("kapsel %q: exit %d, want 2 and one line; it said %q", args, code, text)
		}
		if strings.ContainsAny(text, "\x1b\r\x00") || strings.Contains(text, "goroutine ") || len(text) > 5000 {
			t.Errorf("kapsel %q said %q", args, text)
		}
	}
	eachCommand(func(path []string, cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.HasParent() && cmd.Parent().Name() == "completion" || cmd.Name() == "completion" {
			return // cobra's own
		}
		with := func(args ...string) []string { return append(path[:len(path):len(path)], args...) }
		refused(with("--no-such-flag")...)
		refused(with(many...)...)
		cmd.Flags().VisitAll(func(flag *pflag.Flag) {
			switch flag.Value.Type() {
			case "string", "stringSlice", "stringArray", "string,…", "text or @file", "fieldmask", "bytesHex":
			default:
				refused(with("--" + flag.Name + "=" + hostile)...)
			}
		})
		if cmd.Flags().Lookup("api-key") == nil || cmd.Annotations[rpcAnnotation] == "" {
			return
		}
		var argument []string
		if strings.Contains(cmd.Use, " ") {
			argument = []string{"x"}
			for _, bad := range []string{"", hostile, "../../../etc/passwd", "ep_01m87j6mtcfcq90hena1ynqzs", strings.Repeat("9", 1<<20)} {
				refused(with(bad, "--yes=true", "--url", "http://127.0.0.1:1", "--api-key", "x")...)
			}
		}
		for _, bad := range []string{"gopher://x", "http://", "http://user:pass@host", hostile, "http://h/?q=1"} {
			refused(with(append(argument, "--url="+bad)...)...)
		}
		for _, bad := range []string{"{", "[]", `{"no_such_field":1}`, strings.Repeat("[", 20000), "@/does/not/exist", "@/", hostile} {
			refused(with(append(argument, "--data="+bad)...)...)
		}
		refused(with(append(argument, "--output=xml")...)...)
		refused(with(append(argument, "--profile=nobody")...)...)
	})
}

func TestProfilesAreKeptForOneselfAndChosen(t *testing.T) {
	url, databaseURL := service(t)
	t.Setenv("XDG_CONFIG_HOME", "")
	key := mustSay(t, "keys", "create", "--database-url", databaseURL)
	set := newRoot()
	set.SetArgs([]string{"profiles", "set", "here", "--url", url})
	set.SetIn(strings.NewReader(key + "\n"))
	if err := set.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if said := mustSay(t, "profiles", "list"); !strings.Contains(said, url) || strings.Contains(said, key) {
		t.Errorf("profiles list says %s", said)
	}
	mustSay(t, "endpoints", "create", "--display-name", "of the profile")
	if said := mustSay(t, "endpoints", "list"); !strings.Contains(said, "of the profile") {
		t.Errorf("endpoints list says\n%s", said)
	}
	if _, failure := say(t, "endpoints", "list", "--url", "http://127.0.0.1:1"); strings.Contains(failure, "refused") {
		t.Errorf("the key of a profile was sent to another server: %s", failure)
	}
	t.Setenv("KAPSEL_URL", "http://127.0.0.1:1")
	t.Setenv("KAPSEL_API_KEY", "kps_of_another_server")
	if _, failure := say(t, "endpoints", "list"); !strings.Contains(failure, "127.0.0.1:1") {
		t.Errorf("the environment does not go before the current profile: %s", failure)
	}
	if said := mustSay(t, "endpoints", "list", "--profile", "here"); !strings.Contains(said, "of the profile") {
		t.Errorf("with the profile that is asked for, endpoints list says\n%s", said)
	}
	os.Unsetenv("KAPSEL_URL") // until the end of the test
	os.Unsetenv("KAPSEL_API_KEY")
	path, err := profilesPath()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", path, info.Mode(), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, failure := say(t, "endpoints", "list"); !strings.Contains(failure, "chmod 600") {
		t.Errorf("a file that all can read: %q", failure)
	}
}

func TestResourcesAreMadeListedChangedAndShownInEachFormat(t *testing.T) {
	url, databaseURL := service(t)
	key := mustSay(t, "keys", "create", "--database-url", databaseURL)
	with := func(args ...string) []string { return append(args, "--url", url, "--api-key", key) }
	var made struct {
		Endpoint struct {
			ID, DisplayName string
			Verification    struct{ Preset string }
		}
		Secret string
	}
	text := mustSay(t, with("endpoints", "create", "--display-name", "Orders", "--verification-preset", "github", "-o", "json")...)
	if err := json.Unmarshal([]byte(text), &made); err != nil || made.Endpoint.Verification.Preset != "github" || made.Secret == "" {
		t.Fatalf("%v: endpoints create says %s", err, text)
	}
	endpointID := made.Endpoint.ID
	file := filepath.Join(t.TempDir(), "destination.json")
	if err := os.WriteFile(file, []byte(`{"destination":{"url":"http://127.0.0.1:1/","displayName":"from a file"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	destination := mustSay(t, with("destinations", "create", "--data", "@"+file, "--endpoint-id", endpointID)...)
	if !strings.Contains(destination, "from a file") || !strings.Contains(destination, "whsec_") {
		t.Errorf("destinations create says\n%s", destination)
	}
	var updated struct{ ID, DisplayName string }
	if err := yaml.Unmarshal([]byte(mustSay(t, with("endpoints", "update", endpointID, "--display-name", "yes: no", "-o", "yaml")...)), &updated); err != nil || updated.DisplayName != "" && updated.DisplayName != "yes: no" {
		t.Errorf("endpoints update: %v, %v", updated, err)
	}
	var listed []struct{ ID, DisplayName string }
	text = mustSay(t, with("endpoints", "list", "-o", "json")...)
	if err := json.Unmarshal([]byte(text), &listed); err != nil || len(listed) != 1 || listed[0].DisplayName != "yes: no" {
		t.Errorf("%v: endpoints list says %s", err, text)
	}
	mustSay(t, with("events", "ingest", endpointID, "--payload", `{"n":1}`)...)
	if table := mustSay(t, with("events", "list")...); !strings.HasPrefix(table, "ID ") || strings.Count(table, "\n") != 1 || !strings.Contains(table, endpointID) {
		t.Errorf("events list says\n%s", table)
	}
	eventID := strings.Fields(mustSay(t, with("events", "list")...))[6+1]
	if !strings.HasPrefix(eventID, "evt_") {
		eventID = mustSay(t, with("events", "list", "-o", "json")...)
		eventID = eventID[strings.Index(eventID, "evt_"):][:30]
	}
	if payload := mustSay(t, with("events", "payload", eventID)...); payload != `{"n":1}` {
		t.Errorf("events payload says %q", payload)
	}
	if _, failure := say(t, with("endpoints", "delete", endpointID)...); !strings.Contains(failure, "--yes") {
		t.Errorf("endpoints delete without --yes: %q", failure)
	}
}

// lockedOut is an output that is read while it is written.
type lockedOut struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *lockedOut) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(p)
}

func (o *lockedOut) waitFor(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		o.mu.Lock()
		said := o.buffer.String()
		o.mu.Unlock()
		if strings.Contains(said, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never said %q, but %q", text, said)
		}
	}
}

// background runs a command until stop is called, which returns its error.
func background(t *testing.T, args ...string) (out *lockedOut, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out = new(lockedOut)
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(out)
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	return out, func() error { cancel(); return <-ended }
}

func TestListenForwardsAndTailFollows(t *testing.T) {
	url, databaseURL := service(t)
	key := mustSay(t, "keys", "create", "--database-url", databaseURL)
	with := func(args ...string) []string { return append(args, "--url", url, "--api-key", key) }
	arrived := make(chan string, 10)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrived <- string(body) + r.Header.Get("Webhook-Signature")[:3]
		io.WriteString(w, "thank you")
	}))
	defer app.Close()
	endpoint, err := newClient(url, key).endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{}})
	if err != nil {
		t.Fatal(err)
	}
	tail, stopTail := background(t, with("tail")...)
	listen, stopListen := background(t, with("listen", "--forward", app.URL+"/hooks")...)
	listen.waitFor(t, "whsec_")
	mustSay(t, with("events", "ingest", endpoint.Endpoint.Id, "--payload", "hello")...)
	select {
	case got := <-arrived:
		if got != "hellov1," {
			t.Errorf("the app got %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing arrived")
	}
	listen.waitFor(t, "200 OK")
	tail.waitFor(t, "delivered")
	if err := stopListen(); err != nil {
		t.Errorf("listen: %v", err)
	}
	listen.waitFor(t, "resume within 10 minutes: kapsel listen --forward "+app.URL+"/hooks --session lsn_")
	if err := stopTail(); err != nil {
		t.Errorf("tail: %v", err)
	}
	attempts := mustSay(t, with("deliveries", "list", "--states", "succeeded")...)
	if !strings.Contains(attempts, "dlv_") {
		t.Errorf("deliveries list says\n%s", attempts)
	}
}
