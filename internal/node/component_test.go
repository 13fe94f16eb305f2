package node

import (
	"context"
	"errors"
	"hash/crc32"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// Each component panics, again and again, under load: it alone is started again, everybody else goes on, sources are
// answered, and nothing is lost or waits for a lease.
func TestComponentThatPanicsIsStartedAgainAlone(t *testing.T) {
	for _, test := range []struct{ component, faults string }{
		{"committer", "ingest.taken=panic:0.02"},
		{"recorder", "recorder.taken=panic:0.3"},
		{"claimer", "delivery.after_claim=panic:0.4"},
		{"sealer", "sealer.before_tiles=panic:0.4;sealer.after_tiles=panic:0.4;sealer.after_highwater=panic:0.4"},
		{"routes", "routes.read=panic:1"},
		{"notices", "node.notice=panic:1"},
		{"heads", "node.heads=panic:1"},
		{"membership", "membership.beat=panic:0.5"},
		{"maintenance", "node.maintenance=panic:1"},
		{"holder", "holder.tick=panic:0.5"},
		{"removals", "removals.sweep=panic:0.5"},
	} {
		t.Run(test.component, func(t *testing.T) {
			r, n := one(t, nil)
			r.sink.answers(func(_ *http.Request, body string, seen int) int {
				if seen == 1 && crc32.ChecksumIEEE([]byte(body))%8 == 0 {
					return http.StatusInternalServerError // so that some are claimed, and no breaker opens
				}
				return http.StatusOK
			})
			enable(t, test.faults)
			if test.component == "maintenance" || test.component == "notices" {
				again(t, n, test.component) // or it would have nothing to do for a minute
			}
			const webhooks = 200
			acked := r.load(webhooks, 10*time.Millisecond, func(int) *Node {
				n.Routes().Poke()
				return n
			})
			if len(acked) != webhooks {
				t.Errorf("%d of %d webhooks were acknowledged", len(acked), webhooks)
			}
			eventually(t, "the component panics twice", func() bool { return n.components[test.component].starts.Load() >= 3 })
			fault.Enable(nil)
			r.settled(acked)
			for name, c := range n.components {
				if starts := c.starts.Load(); name != test.component && starts != 1 {
					t.Errorf("%s was started %d times", name, starts)
				}
			}
			r.stop(n)
			if left := r.count("select (l.next_index - s.tree_size)::int from logs l join log_sealers s using (log_id)"); left != 0 {
				t.Errorf("%d leaves are not sealed after the stop", left)
			}
		})
	}
}

// again ends a component and starts it anew.
func again(t *testing.T, n *Node, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.remove(name)(ctx); err != nil {
		t.Fatal(err)
	}
	n.add(name, n.components[name].run)
}

func TestRestGrowsWithEachFailureAndShrinksByWhatRan(t *testing.T) {
	rest := time.Duration(0)
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 2000, 2000} {
		if rest = nextRest(rest, 0); rest != want*time.Millisecond {
			t.Errorf("rest %d is %v, want %v", i, rest, want*time.Millisecond)
		}
	}
	if rest = nextRest(maxRest, 3500*time.Millisecond); rest != 500*time.Millisecond {
		t.Errorf("after 3.5 s it rests for %v, want 500ms", rest)
	}
	if rest = nextRest(rest, time.Minute); rest != 0 {
		t.Errorf("after a minute it rests for %v", rest)
	}
}

// One that always fails does not hold up another one's start, and is itself not started more often than its rests allow.
func TestRestOfOneComponentIsNotTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		supervisor := newSupervisor(log, nil)
		broken := &component{name: "broken", log: log, run: func(context.Context) error { panic("always") }}
		var recovered time.Duration
		began := time.Now()
		shaky := &component{name: "shaky", log: log}
		shaky.run = func(ctx context.Context) error {
			if shaky.starts.Load() == 1 {
				time.Sleep(20 * time.Second) // by now the other one has failed often
				return errors.New("once")
			}
			recovered = time.Since(began)
			<-ctx.Done()
			return ctx.Err()
		}
		supervisor.Add(broken)
		supervisor.Add(shaky)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		supervisor.Serve(ctx)
		if recovered != 20*time.Second {
			t.Errorf("the shaky one was started again after %v, want at once after 20 s", recovered)
		}
		if starts := broken.starts.Load(); starts < 30 || starts > 70 {
			t.Errorf("the broken one was started %d times in a minute", starts)
		}
	})
}

func TestComponentThatRefusesIsNotStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := new(logs)
		log := slog.New(slog.NewTextHandler(said, nil))
		supervisor := newSupervisor(log, nil)
		refuses := &component{name: "sealer", log: log, run: func(context.Context) error { return tlog.ErrRefused }}
		supervisor.Add(refuses)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		supervisor.Serve(ctx)
		if starts := refuses.starts.Load(); starts != 1 || said.count("level=ERROR") != 1 {
			t.Errorf("started %d times, and said: %s", starts, said.text.String())
		}
	})
}
