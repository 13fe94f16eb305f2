package embedpg

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestSecondOwnerIsRefused(t *testing.T) {
	dir := madeCluster(t)
	s := start(t, Config{DataDir: dir})
	err := startError(t, Config{DataDir: dir})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	wantError(t, err, dir, "process "+strconv.Itoa(os.Getpid()))
	if got := ask[int](t, s, "select 1"); got != 1 {
		t.Errorf("the first owner reads %d", got)
	}
}

func TestForeignDirectoryIsRefusedAndLeftAlone(t *testing.T) {
	dir := openDir(t)
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), []byte("years of work"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, startError(t, Config{DataDir: dir}), dir, "thesis.tex", "choose")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("the directory holds %v now", entries)
	}
}

func TestClusterThatIsNoneIsRefused(t *testing.T) {
	for name, version := range map[string]string{"without a version": "", "with a strange version": "yesterday's\n", "of a version that nobody has": "9\n"} {
		t.Run(name, func(t *testing.T) {
			dir := openDir(t)
			cluster := filepath.Join(dir, "cluster")
			if err := os.Mkdir(cluster, 0o700); err != nil {
				t.Fatal(err)
			}
			if version != "" {
				if err := os.WriteFile(filepath.Join(cluster, "PG_VERSION"), []byte(version), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if version == "9\n" {
				wantError(t, startError(t, Config{DataDir: dir}), "PostgreSQL 9, which made the data directory", "KAPSEL_DATABASE_URL")
				return
			}
			wantError(t, startError(t, Config{DataDir: dir}), cluster, "not a PostgreSQL cluster")
		})
	}
}

func TestDataDirectoryThatCannotBeMade(t *testing.T) {
	file := filepath.Join(openDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, startError(t, Config{DataDir: filepath.Join(file, "pg")}), "make the data directory", file)
}
