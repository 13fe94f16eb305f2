package logclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const (
	stateName      = "head.json"
	stateFormat    = "kapsel-monitor/v1"
	evidenceFormat = "kapsel-evidence/v1"
	maxStateBytes  = 1 << 20
	// retryPause is between two looks at a head that is smaller than one that was seen: nodes behind a load balancer and
	// caches may be a moment apart.
	retryPause = 500 * time.Millisecond
)

// Monitor follows a log: it remembers the last head that it has checked, in a file, and checks that each head that it sees
// later has grown out of it.
type Monitor struct {
	Client
	// Dir is where the state is kept, and evidence. It is made if it is not there.
	Dir string
	// Patience is how long a head may be smaller than the last one before that counts as a rollback.
	Patience time.Duration
	// Seen is called with each head that was checked. Optional.
	Seen func(*verify.Head)
	// Missed is called when the log could not be read; the monitor goes on. Optional.
	Missed func(error)
	// Audit is called with each head after its consistency was checked, and decides for itself whether it is time to audit.
	// Optional; its *verify.Error is evidence too.
	Audit func(context.Context, *verify.Head) error

	known *verify.Head
}

// state is the file of the last head that was checked.
type state struct {
	Format    string    `json:"format"`
	URL       string    `json:"url"`
	Note      string    `json:"note"`
	CheckedAt time.Time `json:"checked_at"`
}

// Evidence is what a monitor found: two statements of one log, both signed by it, that cannot both be true; or one that
// does not fit what it serves, or that no trusted key has signed. Anyone can check it: the notes are verbatim.
type Evidence struct {
	Format  string    `json:"format"`
	FoundAt time.Time `json:"found_at"`
	URL     string    `json:"url"`
	Check   string    `json:"check"`
	Reason  string    `json:"reason"`
	// Known is the checkpoint that was seen and checked before, Served the one that is served now. Known is empty if there
	// was none.
	Known  string   `json:"known"`
	Served string   `json:"served"`
	Keys   []string `json:"keys"`
}

// Alarm is the error of a log that is not what it was. File is where its evidence is.
type Alarm struct {
	Evidence
	File string
}

func (a *Alarm) Error() string {
	return fmt.Sprintf("ALARM: %s: %s (evidence: %s)", a.Check, a.Reason, a.File)
}

// Known is the last head that was checked, from the state file; nil if there is none.
func (m *Monitor) Known() (*verify.Head, error) {
	if m.known != nil {
		return m.known, nil
	}
	path := filepath.Join(m.Dir, stateName)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxStateBytes))
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil || s.Format != stateFormat {
		return nil, fmt.Errorf("%s is damaged: restore it from a copy; without it a rollback would go unnoticed", path)
	}
	head, err := verify.OpenHead(s.Note, m.Keys)
	if err != nil {
		return nil, fmt.Errorf("%s holds a head that none of the given keys has signed: %w", path, err)
	}
	m.known = head
	return head, nil
}

// Step looks at the log once. An *Alarm means that the log is not what it was, and that evidence was saved; any other error
// that this could not be found out.
func (m *Monitor) Step(ctx context.Context) (*verify.Head, error) {
	known, err := m.Known()
	if err != nil {
		return nil, err
	}
	note, served, err := m.look(ctx, known)
	if err == nil && known != nil {
		err = m.CheckConsistent(ctx, known, served)
	}
	if err == nil && m.Audit != nil {
		err = m.Audit(ctx, served)
	}
	if refused := (*verify.Error)(nil); errors.As(err, &refused) {
		return nil, m.alarm(known, note, refused)
	}
	if err != nil {
		return nil, err
	}
	if err := m.remember(served); err != nil {
		return nil, err
	}
	if m.Seen != nil {
		m.Seen(served)
	}
	return served, nil
}

// look reads the head and its note, and again for a while if it is smaller than the known one.
func (m *Monitor) look(ctx context.Context, known *verify.Head) (string, *verify.Head, error) {
	for deadline := time.Now().Add(m.Patience); ; {
		note, served, err := m.checkpoint(ctx)
		if err != nil || known == nil || served.Size >= known.Size || time.Now().After(deadline) {
			return note, served, err
		}
		select {
		case <-ctx.Done():
			return "", nil, ctx.Err()
		case <-time.After(retryPause):
		}
	}
}

// Run looks at the log every interval until ctx ends, or until there is an *Alarm. When the log cannot be read it goes on
// trying.
func (m *Monitor) Run(ctx context.Context, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		_, err := m.Step(ctx)
		alarm := (*Alarm)(nil)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &alarm):
			return err
		case err != nil && m.Missed != nil:
			m.Missed(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (m *Monitor) remember(head *verify.Head) error {
	data, err := json.MarshalIndent(state{stateFormat, m.URL, head.Note, time.Now().UTC().Truncate(time.Second)}, "", "  ")
	if err != nil {
		return err
	}
	if err := m.write(stateName, data); err != nil {
		return fmt.Errorf("keep the head of %d leaves: %w", head.Size, err)
	}
	m.known = head
	return nil
}

// alarm saves the evidence. The state stays: the next run will find the same.
func (m *Monitor) alarm(known *verify.Head, served string, refused *verify.Error) error {
	a := &Alarm{Evidence: Evidence{
		Format: evidenceFormat, FoundAt: time.Now().UTC(), URL: m.URL, Check: refused.Check, Reason: refused.Reason, Served: served, Keys: m.Keys,
	}}
	if known != nil {
		a.Known = known.Note
	}
	name := "evidence-" + a.FoundAt.Format("20060102T150405.000000000Z") + ".json"
	a.File = filepath.Join(m.Dir, name)
	data, err := json.MarshalIndent(a.Evidence, "", "  ")
	if err == nil {
		err = m.write(name, data)
	}
	if err != nil {
		return errors.Join(a, fmt.Errorf("save evidence: %w", err))
	}
	return a
}

// write puts a file in place whole or not at all, also over a crash.
func (m *Monitor) write(name string, data []byte) error {
	if err := os.MkdirAll(m.Dir, 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(m.Dir, name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(append(data, '\n'))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), filepath.Join(m.Dir, name)); err != nil {
		return err
	}
	directory, err := os.Open(m.Dir)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
