package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
)

// smallDisk makes a database whose tables are on a disk of that size. It needs the right to mount one.
func smallDisk(t *testing.T, megabytes int) (databaseURL, dir string) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), pgtest.New(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(context.Background(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var dataDir string
	if err := admin.QueryRow(t.Context(), "show data_directory").Scan(&dataDir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dataDir)
	if err != nil {
		t.Skipf("the database server is not on this machine: %v", err)
	}
	account := info.Sys().(*syscall.Stat_t)
	if dir, err = os.MkdirTemp("", "smalldisk"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	err = syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0711", megabytes))
	if err != nil {
		os.Remove(dir)
		admin.Close(context.Background())
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		exec("drop database if exists small_disk with (force)")
		exec("drop tablespace small_disk")
		admin.Close(context.Background())
		// Processes of the server may have files open yet that are dropped.
		if err := errors.Join(syscall.Unmount(dir, syscall.MNT_DETACH), os.Remove(dir)); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	space := filepath.Join(dir, "space")
	if err := errors.Join(os.Mkdir(space, 0o700), os.Chown(space, int(account.Uid), int(account.Gid))); err != nil {
		t.Fatal(err)
	}
	exec("create tablespace small_disk location '" + space + "'")
	exec("create database small_disk tablespace small_disk")
	u, err := url.Parse(admin.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/small_disk"
	return u.String(), dir
}

// The database's disk fills up under load: sources are told to come again, nothing that was acknowledged is lost, and all
// goes on by itself once there is room.
func TestDiskFullOnTheDatabaseLosesNothing(t *testing.T) {
	url, dir := smallDisk(t, 96)
	r := newRigOn(t, url)
	config := r.config()
	config.Hold = time.Second
	n := r.start(config)
	r.configure(10 * time.Second)
	r.refresh(n)

	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	var acked []string
	refused := 0
	for i := 0; refused < 3; i++ {
		if i == 2000 {
			t.Fatal("2000 webhooks of 64 KiB fit on a disk that is full")
		}
		key := fmt.Sprintf("webhook-%d", i)
		switch status, header := r.post(n, key, incompressible(key)); {
		case status == http.StatusAccepted:
			acked = append(acked, key)
		case status == http.StatusServiceUnavailable && header.Get("Retry-After") != "":
			refused++
		default:
			t.Fatalf("status %d, Retry-After %q", status, header.Get("Retry-After"))
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "webhooks are taken again", func() bool {
		status, _ := r.post(n, "after", incompressible("after"))
		return status == http.StatusAccepted
	})
	r.settled(nil)
	if events := r.count("select count(*) from events"); events < len(acked)+1 {
		t.Errorf("%d events are stored, %d were acknowledged", events, len(acked)+1)
	}
	for _, key := range append(acked, "after") {
		if r.sink.arrived(key) == 0 {
			t.Errorf("%s was acknowledged, and never arrived", key)
		}
	}
}

// fill writes a file until the disk is full but for a little.
func fill(t *testing.T, name string) {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for {
		if _, err := file.Write(block); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// incompressible is a body of 64 KiB that begins with its key.
func incompressible(key string) []byte {
	noise := make([]byte, 32<<10)
	rand.Read(noise)
	return []byte(`{"key":"` + key + `","noise":"` + hex.EncodeToString(noise) + `"}`)
}
