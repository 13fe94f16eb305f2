package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestFilesAreReplacedWholeAndOthersAreWrittenTo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	text := func(s string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			io.WriteString(w, s)
			return err
		}
	}
	if err := writeWhole(path, 0o640, text("first", nil)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken off")
	if err := writeWhole(path, 0o640, text("sec", broken)); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "first" {
		t.Errorf("a file that could not be replaced holds %q, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	link := filepath.Join(dir, "link") // as /dev/stdout is one
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	if err := writeWhole(link, 0o640, text("second", nil)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "second" {
		t.Errorf("what the link leads to holds %q, %v", got, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info.Mode(), err)
	}
	if err := writeWhole(dir, 0o640, text("x", nil)); err == nil {
		t.Error("a directory was written to")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("files were left behind: %v, %v", left, err)
	}
}

func TestValuesAreReadFromFilesUpToABound(t *testing.T) {
	if _, err := os.Stat("/dev/zero"); err != nil {
		t.Skip(err)
	}
	code, text := runCaptured(t, "events", "ingest", "ep_01m87j6mtcfcq90hena1ynqzs0", "--payload", "@/dev/zero", "--url", "http://127.0.0.1:1", "--api-key", "x")
	if code != 2 || text != "kapsel: --payload: /dev/zero is larger than 34 MiB\n" {
		t.Errorf("exit %d: %q", code, text)
	}
}
