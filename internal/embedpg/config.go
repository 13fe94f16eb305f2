package embedpg

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// Config says which cluster to run and how.
type Config struct {
	// DataDir is PostgreSQL's own directory: the cluster, its log, its socket and a lock. It is
	// made when missing, and must be empty or made by this package otherwise. Empty means a
	// temporary directory, removed by Stop.
	DataDir string

	// Durable makes a COMMIT survive a crash of the operating system. Without it PostgreSQL
	// never syncs: only for clusters that are thrown away.
	Durable bool

	// StandbyOf makes the cluster, when there is none yet, as a streaming standby of another server instead of an empty one.
	// Needs pg_basebackup beside postgres: ErrNoBaseBackup otherwise.
	StandbyOf *Server

	// Settings are added to, and win over, the defaults of this package: names and values
	// as in postgresql.conf.
	Settings map[string]string

	// Logger gets one line for each change of state. Nil means none.
	Logger *slog.Logger

	// BinDir is the directory of initdb and postgres. Empty means to look for them; see Start.
	BinDir string
}

// defaultSettings suit one busy application on a developer's machine: throughput first, at no
// cost to durability.
var defaultSettings = map[string]string{
	"listen_addresses": "",
	"max_connections":  "100",
	"shared_buffers":   "256MB",
	"wal_buffers":      "16MB",
	// Few, spread out checkpoints: each one makes the next write of every page log it in full.
	"wal_compression":              "on",
	"max_wal_size":                 "4GB",
	"checkpoint_timeout":           "15min",
	"checkpoint_completion_target": "0.9",
	// Short statements never earn back the time that compiling them takes.
	"jit":          "off",
	"timezone":     "UTC",
	"log_timezone": "UTC",
	// DETAIL and CONTEXT lines quote rows, and so payloads; a log must not.
	"log_error_verbosity": "terse",
	"log_line_prefix":     "%m [%p] ",
	"log_destination":     "stderr",
	"logging_collector":   "off",
	"fsync":               "on",
	"synchronous_commit":  "on",
	"full_page_writes":    "on",
}

// throwawaySettings trade every guarantee for speed.
var throwawaySettings = map[string]string{
	"fsync":              "off",
	"synchronous_commit": "off",
	"full_page_writes":   "off",
	// In the data directory, and so removed with it, instead of in /dev/shm, where what a killed
	// server had is cleaned up only by a next start.
	"dynamic_shared_memory_type": "mmap",
}

// arguments returns the settings as arguments for postgres, in a fixed order.
func (c Config) arguments() []string {
	all := maps.Clone(defaultSettings)
	if !c.Durable {
		maps.Copy(all, throwawaySettings)
	}
	maps.Copy(all, c.Settings)
	var args []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "-c", name+"="+all[name])
	}
	return args
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// DefaultDataDir returns where Kapsel keeps its state on this machine: /var/lib/kapsel as root,
// else the user's state directory ($XDG_STATE_HOME/kapsel or ~/.local/state/kapsel; on macOS
// ~/Library/Application Support/kapsel). It is not made here. A cluster belongs into a
// subdirectory, since Config.DataDir may hold nothing else; as root, whoever makes the parent must
// leave it enterable for others (0711), as PostgreSQL refuses to run as root.
func DefaultDataDir() (string, error) {
	if runtime.GOOS == "darwin" && os.Geteuid() != 0 {
		dir, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("find the user's application support directory: %w", err)
		}
		return filepath.Join(dir, "kapsel"), nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/kapsel", nil
	}
	// The XDG base directory specification: a relative path there is to be ignored.
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "kapsel"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the user's home directory: %w", err)
	}
	return filepath.Join(home, ".local", "state", "kapsel"), nil
}
