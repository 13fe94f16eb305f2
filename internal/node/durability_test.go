package node

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
)

func TestADatabaseThatCanLoseWhatItCommittedIsComplainedAbout(t *testing.T) {
	started := func(r *rig) string {
		logged := new(syncBuffer)
		config := r.config()
		config.Logger = slog.New(slog.NewTextHandler(logged, nil))
		r.stop(r.start(config))
		return logged.String()
	}
	const complaint = "can lose what it has committed"
	durable := pgtest.Durable(t)
	if said := started(newRigOn(t, durable.ConnString("postgres"))); strings.Contains(said, complaint) {
		t.Errorf("of a durable database it says %s", said)
	}
	r := newRigOn(t, durable.ConnString("postgres"))
	r.exec("alter database postgres set synchronous_commit = off")
	if said := started(r); !strings.Contains(said, complaint) || !strings.Contains(said, "settings=synchronous_commit") {
		t.Errorf("of one whose commits are not synchronous it says %s", said)
	}
}
