package delivery

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
)

const sourceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestOnlyAValidTraceparentIsAParent(t *testing.T) {
	for text, want := range map[string]bool{
		sourceParent: true,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00":       true,
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":       true,
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later": true,
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.later": false,
		"": false, "00": false,
		sourceParent + "-more": false,
		sourceParent[:54]:      false,
		"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": false,
		"0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": false,
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01": false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g": false,
		"00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01": false,
	} {
		if _, valid := parseTraceparent(text); valid != want {
			t.Errorf("%q: valid %v, want %v", text, valid, want)
		}
	}
}

// Each attempt is a span of its own in the trace of the source.
func TestAttemptsContinueTheSourcesTrace(t *testing.T) {
	event := newEvent([]byte("{}"))
	event.Headers = []byte("Traceparent: " + sourceParent + "\r\nTracestate: a=1\r\nTracestate: b=2 , c=3\r\n")
	seen := map[string]bool{sourceParent: true}
	for range 3 {
		_, got := send(t, event, func(d *route.Destination) { d.ForwardAll = true })
		parent := got.header["Traceparent"]
		if len(parent) != 1 || seen[parent[0]] || !strings.HasPrefix(parent[0], sourceParent[:36]) || !strings.HasSuffix(parent[0], "-01") {
			t.Fatalf("traceparent %q after %v", parent, seen)
		}
		if _, valid := parseTraceparent(parent[0]); !valid {
			t.Errorf("%q is not valid", parent[0])
		}
		if state := got.header["Tracestate"]; len(state) != 1 || state[0] != "a=1,b=2,c=3" {
			t.Errorf("tracestate %q", state)
		}
		seen[parent[0]] = true
	}
}

func TestWithoutAValidParentTheEventIsATraceOfItsOwn(t *testing.T) {
	for _, lines := range []string{
		"",
		"Traceparent: 00-bad\r\nTracestate: a=1\r\n",
		"Traceparent: " + sourceParent + "\r\nTraceparent: " + sourceParent + "\r\nTracestate: a=1\r\n",
	} {
		event := newEvent([]byte("{}"))
		event.Headers = []byte(lines)
		want := "00-" + strings.ReplaceAll(event.ID.String(), "-", "") + "-"
		_, got := send(t, event, func(d *route.Destination) { d.ForwardAll = true })
		if parent := got.header.Get("Traceparent"); !strings.HasPrefix(parent, want) {
			t.Errorf("%q: traceparent %q, want %s…", lines, parent, want)
		}
		if state := got.header["Tracestate"]; state != nil {
			t.Errorf("%q: tracestate %q belongs to no parent", lines, state)
		}
	}
}

func TestTraceStateIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,60}=[a-z]{1,200}(,[a-z]{1,9}=[a-z]{1,60}){0,9}`), 0, 12).Draw(t, "values")
		got := boundTraceState(values)
		if len(got) > maxTraceStateBytes || strings.Count(got, "=") > 2*maxTraceStateMembers {
			t.Fatalf("%d bytes: %q", len(got), got)
		}
		if again := boundTraceState([]string{got}); again != got {
			t.Fatalf("%q becomes %q", got, again)
		}
	})
	for _, bad := range []string{"novalue", "a=1,=2", "a=\x01", "a=é"} {
		if got := boundTraceState([]string{bad}); got != "" {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add(sourceParent)
	f.Fuzz(func(t *testing.T, text string) {
		parsed, valid := parseTraceparent(text)
		if !valid {
			return
		}
		next, again := parseTraceparent(parsed.traceparent(randomSpan()))
		if !again || next.id != parsed.id || next.flags != parsed.flags {
			t.Errorf("%q became %+v, then %+v", text, parsed, next)
		}
	})
}

// BenchmarkHeaders shows what a send costs before the network: run it with -benchmem.
func BenchmarkHeaders(b *testing.B) {
	sender := newSender(b)
	destination := newDestination(b, "http://127.0.0.1/")
	event := newEvent([]byte(`{"type":"invoice.paid","data":{"id":7}}`))
	event.Headers = []byte("Accept: */*\r\nContent-Type: application/json\r\nUser-Agent: Source/1\r\nX-Request-Id: " + id.Event.Text(event.ID) + "\r\n")
	job := Job{Destination: destination}
	job.Event = event
	b.ReportAllocs()
	for b.Loop() {
		hashHeaders(sender.headers(job, &ledger.Attempt{StartedAt: event.ReceivedAt}))
	}
}
