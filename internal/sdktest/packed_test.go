package sdktest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// version is what the SDKs are packed as.
const version = "v0.1.0"

// scenarioTime bounds one command, on a busy machine.
const scenarioTime = 3 * time.Minute

// packTypeScript installs the packed SDK in an empty directory, with nothing but what its package.json asks for, and returns
// the directory, or why npm cannot do that.
func packTypeScript(t testing.TB) (installed, problem string) {
	t.Helper()
	dir := t.TempDir()
	run(t, tsDirectory, nil, "npm", "pack", "--silent", "--pack-destination", dir)
	tarballs, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(tarballs) != 1 {
		t.Fatalf("npm pack made %v: %v", tarballs, err)
	}
	write(t, dir, "package.json", `{"private": true, "type": "module"}`)
	command := exec.CommandContext(t.Context(), "npm", "install", "--prefer-offline", "--no-audit", "--no-fund", "--silent", tarballs[0])
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Sprintf("npm cannot fetch what the SDK depends on: %v\n%s", err, output)
	}
	return dir, ""
}

// compile makes JavaScript of a TypeScript program beside the installed SDK, whose types it is checked against.
func compile(t testing.TB, dir string, sources ...string) {
	t.Helper()
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, filepath.Base(source), string(text))
		types, err := filepath.Abs(filepath.Join(tsDirectory, "node_modules", "@types"))
		if err != nil {
			t.Fatal(err)
		}
		run(t, dir, nil, absolute(t, filepath.Join(tsDirectory, "node_modules", ".bin", "tsc")), "--target", "es2022", "--module", "nodenext",
			"--strict", "--noUncheckedIndexedAccess", "--lib", "es2023,dom,dom.iterable,dom.asynciterable", "--typeRoots", types, "--types", "node", filepath.Base(source))
	}
}

// packGo serves this module from a directory as a Go module proxy does, and returns an empty module that requires it, with the
// environment for the go command: what it needs else comes from the module cache, and nothing from a network.
func packGo(t testing.TB) (dir string, environment []string) {
	t.Helper()
	root := absolute(t, "../..")
	list, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Skipf("git cannot list the files of the module: %v", err)
	}
	var files []zip.File
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		if info, err := os.Stat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
			files = append(files, packedFile{path: name, root: root})
		}
	}
	const path = "github.com/kapsel-dev/kapsel"
	served := filepath.Join(t.TempDir(), filepath.FromSlash(path), "@v")
	if err := os.MkdirAll(served, 0o755); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := zip.Create(&archive, module.Version{Path: path, Version: version}, files); err != nil {
		t.Fatalf("pack the module: %v", err)
	}
	description, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, served, version+".zip", archive.String())
	write(t, served, version+".mod", string(description))
	write(t, served, version+".info", fmt.Sprintf(`{"Version":%q,"Time":"2026-01-01T00:00:00Z"}`, version))
	write(t, served, "list", version+"\n")

	cache := strings.TrimSpace(run(t, ".", nil, "go", "env", "GOMODCACHE"))
	proxy := strings.TrimSuffix(served, filepath.Join(filepath.FromSlash(path), "@v"))
	// A cache of its own for modules: the packed one must not stay in the user's.
	own := t.TempDir()
	t.Cleanup(func() { exec.Command("chmod", "-R", "u+w", own).Run() }) // module caches are read-only
	environment = append(os.Environ(), "GOPROXY=file://"+proxy+",file://"+filepath.Join(cache, "cache", "download"), "GOSUMDB=off", "GOFLAGS=-mod=mod -trimpath",
		"GOMODCACHE="+own, "GOWORK=off")
	dir = t.TempDir()
	run(t, dir, environment, "go", "mod", "init", "example.com/empty")
	run(t, dir, environment, "go", "get", path+"/sdk/go@"+version)
	return dir, environment
}

// packedFile is a file of this module.
type packedFile struct{ path, root string }

func (f packedFile) Path() string { return f.path }

func (f packedFile) Lstat() (os.FileInfo, error) { return os.Lstat(filepath.Join(f.root, f.path)) }

func (f packedFile) Open() (io.ReadCloser, error) { return os.Open(filepath.Join(f.root, f.path)) }

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func absolute(t testing.TB, path string) string {
	t.Helper()
	absolute, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return absolute
}

// startUntil starts a program whose standard input ends with ctx, which is to end it, and returns what it writes.
func startUntil(ctx context.Context, t *testing.T, running *sync.WaitGroup, command *exec.Cmd, name string) (stdout io.Reader) {
	t.Helper()
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, write := io.Pipe()
	said := new(lastWords)
	command.Stdout, command.Stderr = write, said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		stop := context.AfterFunc(ctx, func() { stdin.Close() })
		defer stop()
		late := time.AfterFunc(2*scenarioTime, func() { command.Process.Kill() })
		defer late.Stop()
		defer write.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, said)
		}
	})
	return read
}

// run runs a program to its end and returns what it wrote to standard output.
func run(t testing.TB, dir string, environment []string, name string, arguments ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scenarioTime)
	defer cancel()
	command := exec.CommandContext(ctx, name, arguments...)
	command.Dir, command.Env = dir, environment
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(arguments, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}
