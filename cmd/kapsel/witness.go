package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/witness"
)

// maxWitnessFileBytes bounds a policy, and a list of logs.
const maxWitnessFileBytes = 1 << 20

// parseWitnesses reads the policy of the witnesses that cosign this node's log.
func (f *nodeFlags) parseWitnesses() error {
	switch f.witnessMode {
	case "hold":
		f.config.WitnessHold = true
	case "warn":
	default:
		return usageError(fmt.Errorf("--witness-mode %q: want warn or hold", f.witnessMode))
	}
	if f.witnessPolicy == "" {
		return nil
	}
	text, err := readSmallFile(f.witnessPolicy, maxWitnessFileBytes)
	if err != nil {
		return usageError(fmt.Errorf("--witness-policy: %w", err))
	}
	if f.config.Witnesses, err = witness.ParsePolicy(text); err != nil {
		return usageError(fmt.Errorf("--witness-policy: %w", err))
	}
	return nil
}

func readSmallFile(path string, limit int64) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return string(text), err
}

// witnessFlags are those of kapsel witness.
type witnessFlags struct {
	listen, name, stateDir, key, logsFile, logLevel string
	logs                                            []string
}

func newWitness() *cobra.Command {
	var flags witnessFlags
	cmd := &cobra.Command{
		Use: "witness", Short: "Cosign the checkpoints of other logs, as a witness of C2SP tlog-witness",
		Long: `Serves POST /add-checkpoint: cosigns a log's checkpoint when it is signed by a key that was given here, and
proved to continue what was cosigned before. What was cosigned last is on disk before it is answered. Any log that
speaks C2SP tlog-witness can use it. It needs no database. Put TLS before it.

The state directory remembers how far each log was followed. Lost or rolled back, this witness could vouch for a fork:
keep it on a disk that lasts, give it to one process only, and never restore it from a backup. Start with another key instead.`,
		Example: `  kapsel witness --name witness.example.com --state-dir /var/lib/kapsel-witness --log log.example.org/log/1+1a2b3c4d+AQ…`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runWitness(cmd, &flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.listen, "listen", "127.0.0.1:8090", "address to serve on; port 0 picks one")
	f.StringVar(&flags.name, "name", "", "name of the witness's key, by custom its host, such as witness.example.com")
	f.StringVar(&flags.stateDir, "state-dir", "", "directory of what was cosigned, and of the key")
	f.StringVar(&flags.key, "key", "", "URL of the witness's key: a file, pkcs11:…, awskms:… or gcpkms:… (default witness.key in the state directory, made at the first start)")
	f.StringArrayVar(&flags.logs, "log", nil, "verifier key of a log to follow, <origin>+<key id>+<base64>; may be repeated")
	f.StringVar(&flags.logsFile, "logs", "", "file with a verifier key a line; # begins a comment")
	f.StringVar(&flags.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func runWitness(cmd *cobra.Command, flags *witnessFlags) (err error) {
	ctx := cmd.Context()
	var level slog.Level
	switch {
	case level.UnmarshalText([]byte(flags.logLevel)) != nil:
		return usageError(fmt.Errorf("--log-level %q: want debug, info, warn or error", flags.logLevel))
	case flags.name == "" || flags.stateDir == "":
		return usageError(errors.New("--name and --state-dir are needed"))
	}
	logs := flags.logs
	if flags.logsFile != "" {
		text, err := readSmallFile(flags.logsFile, maxWitnessFileBytes)
		if err != nil {
			return usageError(fmt.Errorf("--logs: %w", err))
		}
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line != "" {
				logs = append(logs, line)
			}
		}
	}
	if err := os.MkdirAll(flags.stateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	unlock, err := witness.Lock(flags.stateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	key, err := openWitnessKey(ctx, flags)
	if err != nil {
		return err
	}
	logger := telemetry.NewJSON(cmd.ErrOrStderr(), telemetry.NewLevels(level))
	server, err := witness.NewServer(witness.ServerConfig{Name: flags.name, Signer: key.Signer(), Logs: logs, StateDir: flags.stateDir, Logger: logger})
	if err != nil {
		return usageError(err)
	}
	verifier, err := server.VerifierKey()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", flags.listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", flags.listen, err)
	}
	logger.Info("ready", "url", "http://"+listener.Addr().String(), "verifier_key", verifier, "logs", len(logs))
	return serveUntilDone(ctx, listener, server, slog.NewLogLogger(logger.Handler(), slog.LevelWarn))
}

func openWitnessKey(ctx context.Context, flags *witnessFlags) (*tlog.Key, error) {
	if flags.key == "" {
		return tlog.OpenKeyFile(filepath.Join(flags.stateDir, "witness.key"))
	}
	return tlog.OpenKey(ctx, flags.key)
}

// serveUntilDone serves until ctx ends, and then finishes the requests that are under way.
func serveUntilDone(ctx context.Context, listener net.Listener, handler http.Handler, errorLog *log.Logger) error {
	server := &http.Server{
		Handler: handler, ErrorLog: errorLog, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(last); err != nil {
		return fmt.Errorf("finish requests: %w", err)
	}
	return nil
}
