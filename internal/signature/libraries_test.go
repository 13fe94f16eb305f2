package signature

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// librariesOf are the presets whose providers publish a library that testdata/libraries runs.
var librariesOf = []string{"stripe", "github", "svix", "standard-webhooks", "twilio", "sendgrid", "discord", "adyen", "adyen-platform",
	"square", "paddle", "linear", "hubspot", "shopify", "slack", "razorpay", "zoom"}

// libraryMessage is what libraries.mjs reads.
type libraryMessage struct {
	Preset  string            `json:"preset"`
	Secret  string            `json:"secret"`
	URL     string            `json:"url"`
	Body    string            `json:"body"`
	ID      string            `json:"id"`
	Now     int64             `json:"now"`
	Headers map[string]string `json:"headers"`
}

// The libraries of the providers take what we sign as them, and refuse it when a bit is flipped; we do the same with what
// they sign.
func TestProvidersOwnLibrariesAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("runs Node.js")
	}
	dir := fetchLibraries(t)
	// The libraries have no other clock. What they verify is signed a little ahead, since Paddle's takes 5 seconds, which
	// Node.js may need to start, and all take some time ahead.
	now := time.Now().Truncate(time.Second)
	ahead := now.Add(30 * time.Second)
	type own struct {
		preset   Preset
		verifier *Verifier
		secrets  secretPair
	}
	var owns []own
	var input struct {
		Sign   []libraryMessage `json:"sign"`
		Verify []libraryMessage `json:"verify"`
	}
	ask := func(p Preset, secret string, r Request) {
		m := libraryMessage{Preset: p.Name, Secret: secret, URL: r.URL, Body: string(r.Body), Headers: map[string]string{}}
		for name := range r.Header {
			m.Headers[strings.ToLower(name)] = r.Header.Get(name)
		}
		input.Verify = append(input.Verify, m)
	}
	for _, name := range librariesOf {
		p := preset(name)
		secrets := newSecretPair(t, p)
		v, err := NewVerifier(Config{Preset: name}, asBytes([]string{secrets.receiver}))
		if err != nil {
			t.Fatal(err)
		}
		owns = append(owns, own{p, v, secrets})
		input.Sign = append(input.Sign, libraryMessage{
			Preset: name, Secret: secrets.sender, URL: sampleURL, Body: string(sampleBody(p)), ID: "delivery-1", Now: now.Unix(),
		})
		good := sample(t, p, secrets.sender, ahead)
		ask(p, secrets.receiver, good)
		forged := good
		forged.Body = flipped(t, p, good.Body)
		ask(p, secrets.receiver, forged)
	}
	var output struct {
		Sign []*struct {
			Headers map[string]string
			Body    string
		}
		Verify []bool
	}
	runLibraries(t, dir, input, &output)
	if len(output.Sign) != len(owns) || len(output.Verify) != 2*len(owns) {
		t.Fatalf("%d and %d answers for %d presets", len(output.Sign), len(output.Verify), len(owns))
	}
	signers := 0
	for i, o := range owns {
		t.Run(o.preset.Name, func(t *testing.T) {
			if !output.Verify[2*i] {
				t.Error("the library refuses what we signed")
			}
			if output.Verify[2*i+1] {
				t.Error("the library takes a flipped bit")
			}
			signed := output.Sign[i]
			if signed == nil {
				return // it can only verify
			}
			signers++
			r := Request{Method: http.MethodPost, URL: sampleURL, Header: http.Header{}, Body: []byte(signed.Body)}
			for name, value := range signed.Headers {
				r.Header.Set(name, value)
			}
			if err := o.verifier.Verify(r, now); err != nil {
				t.Errorf("we refuse what the library signed: %v", err)
			}
			if o.preset.Timed() {
				if err := o.verifier.Verify(r, now.Add(o.preset.Tolerance+time.Second)); !errors.Is(err, ErrStaleTimestamp) {
					t.Errorf("too late: error = %v, want ErrStaleTimestamp", err)
				}
			}
			r.Body = flipped(t, o.preset, r.Body)
			if o.verifier.Verify(r, now) == nil {
				t.Error("we take a flipped bit")
			}
		})
	}
	if signers < 6 {
		t.Errorf("only %d libraries signed", signers)
	}
}

// flipped changes one bit that the signature covers.
func flipped(t *testing.T, p Preset, body []byte) []byte {
	t.Helper()
	ranges := coveredRanges(t, p, body)
	last := ranges[len(ranges)-1]
	changed := bytes.Clone(body)
	changed[last[1]-2] ^= 1
	return changed
}

func runLibraries(t *testing.T, dir string, input, output any) {
	t.Helper()
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "libraries.mjs")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	answer, err := cmd.Output()
	if err != nil {
		t.Fatalf("node libraries.mjs: %v\n%s", err, stderr.Bytes())
	}
	if err := json.Unmarshal(answer, output); err != nil {
		t.Fatalf("%v: %.500s", err, answer)
	}
}

// fetchLibraries returns a folder with libraries.mjs and its packages, which npm fetches once into the user's cache, at
// the versions and hashes of package-lock.json. Without npm or a network it skips the test.
func fetchLibraries(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"npm", "node"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s", tool)
		}
	}
	files := map[string][]byte{}
	digest := sha256.New()
	for _, name := range []string{"package.json", "package-lock.json", "libraries.mjs"} {
		text, err := os.ReadFile(filepath.Join("testdata", "libraries", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = text
		if name != "libraries.mjs" {
			digest.Write(text)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "kapsel", fmt.Sprintf("provider-libraries-%x", digest.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err != nil {
		if err := installLibraries(dir, files); err != nil {
			t.Skipf("the libraries could not be fetched: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "libraries.mjs"), files["libraries.mjs"], 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func installLibraries(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "provider-libraries-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(work, name), text, 0o644); err != nil {
			return err
		}
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = work
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, output)
	}
	if err := os.Rename(work, dir); err != nil && !os.IsExist(err) {
		return err
	}
	return nil
}
