package sdktest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/chaos"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

const (
	restarts = 3
	// burst of webhooks before and after each restart.
	burst    = 20
	patience = 60 * time.Second
)

// notes are what one watcher was told.
type notes struct {
	name string

	mu            sync.Mutex
	states        map[string][]string
	heads         []head
	interruptions int
	opened        int
}

type head struct{ size, from int64 }

func newNotes(name string) *notes { return &notes{name: name, states: make(map[string][]string)} }

func (n *notes) event(id, state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.states[id] = append(n.states[id], state)
}

func (n *notes) update(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// open says that the stream of events was not open as often yet, "" when it was.
func (n *notes) open(times int) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opened < times {
		return fmt.Sprintf("%s: the stream of events was open %d times, not %d", n.name, n.opened, times)
	}
	return ""
}

// complete says what is still missing, "" when nothing is. What was sent after the first head is under another one.
func (n *notes) complete(sent []string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range sent {
		if states := n.states[id]; len(states) == 0 || states[len(states)-1] != "DELIVERED" {
			return fmt.Sprintf("%s: event %s was told as %v, %d of %d events were told", n.name, id, states, len(n.states), len(sent))
		}
	}
	if len(n.heads) < 2 {
		return fmt.Sprintf("%s: %d heads were told, not 2", n.name, len(n.heads))
	}
	return ""
}

func (n *notes) check(t *testing.T, sent []string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.states) != len(sent) {
		t.Errorf("%s: %d events were told, %d were sent", n.name, len(n.states), len(sent))
	}
	for id, states := range n.states {
		for i := 1; i < len(states); i++ {
			if states[i] == states[i-1] {
				t.Errorf("%s: event %s was told twice: %v", n.name, id, states)
			}
		}
	}
	for i, h := range n.heads {
		if i > 0 && (h.size <= n.heads[i-1].size || h.from != n.heads[i-1].size) {
			t.Errorf("%s: a head of %d leaves with a proof from %d came after one of %d", n.name, h.size, h.from, n.heads[i-1].size)
		}
	}
	if n.interruptions < restarts {
		t.Errorf("%s: %d interruptions by %d restarts", n.name, n.interruptions, restarts)
	}
}

// The server is restarted three times, killed the second time, while watchers run: they are told each event and each state once.
func testStreamsGoOnAcrossRestarts(t *testing.T, s *scene) {
	dev := s.dev
	if dev.Ended() { // with the test that has restarted it
		dev.Restart(t)
	}
	sink := chaos.NewSink(t)
	route := dev.API().CreateRoute(t, sink.URL)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	watchers := []*notes{newNotes("Go"), newNotes("Go over gRPC")}
	watchGo(ctx, t, &running, goClient(t, dev.Ready.URL, dev), watchers[0])
	watchGo(ctx, t, &running, grpcClient(t, dev), watchers[1])
	if s.packed != "" {
		for _, way := range []string{"fetch", "connect", "grpc"} {
			n := newNotes("TypeScript over " + way)
			watchers = append(watchers, n)
			watchTypeScript(ctx, t, &running, s.packed, dev, way, n)
		}
	}
	open := func(times int) {
		for _, n := range watchers {
			await(t, func() string { return n.open(times) })
		}
	}
	open(1)
	var sent []string
	send := func() {
		for range burst {
			var answer struct{ Receipt struct{ EventID string } }
			dev.API().Call(t, "IngestService/Ingest", map[string]any{"endpointId": route.EndpointID, "payload": "e30="}, &answer)
			sent = append(sent, answer.Receipt.EventID)
		}
	}
	send()
	for i := range restarts {
		if i == 1 {
			dev.Kill()
		} else if code := dev.Terminate(t, patience); code != 0 {
			t.Fatalf("it ended with code %d", code)
		}
		dev.Restart(t)
		send()
		open(i + 2) // lest a watcher sleeps over a restart
	}
	for _, n := range watchers {
		await(t, func() string { return n.complete(sent) })
	}
	cancel()
	running.Wait()
	for _, n := range watchers {
		n.check(t, sent)
		t.Logf("%s: %d events in %d heads across %d interruptions", n.name, len(n.states), len(n.heads), n.interruptions)
	}
}

func await(t *testing.T, missing func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		what := missing()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// goClient is a client with connections of its own.
func goClient(t *testing.T, address string, dev *chaos.Dev) *kapsel.Client {
	t.Helper()
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	client, err := kapsel.New(address, kapsel.WithAPIKey(dev.Ready.APIKey), kapsel.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// grpcClient is one that speaks gRPC, by HTTP/2 without TLS.
func grpcClient(t *testing.T, dev *chaos.Dev) *kapsel.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	client, err := kapsel.New(dev.Ready.URL, kapsel.WithAPIKey(dev.Ready.APIKey), kapsel.WithHTTPClient(&http.Client{Transport: transport}), kapsel.WithGRPC())
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// quick connects again soon.
func quick() kapsel.Stream {
	return kapsel.Stream{Retry: kapsel.Retry{InitialWait: 50 * time.Millisecond, MaxWait: 500 * time.Millisecond}}
}

func watchGo(ctx context.Context, t *testing.T, running *sync.WaitGroup, client *kapsel.Client, n *notes) {
	options := quick()
	options.OnInterruption = func(error, time.Duration) { n.update(func() { n.interruptions++ }) }
	events := options
	events.OnOpen = func() { n.update(func() { n.opened++ }) }
	running.Go(func() {
		for event, err := range client.WatchEvents(ctx, nil, events) {
			if err != nil {
				t.Errorf("%s: %v", n.name, err)
				return
			}
			n.event(event.Id, event.State.String()[len("EVENT_STATE_"):])
		}
	})
	running.Go(func() {
		for update, err := range client.WatchTreeHeads(ctx, "", nil, options) {
			if err != nil {
				t.Errorf("%s: %v", n.name, err)
				return
			}
			n.update(func() {
				n.heads = append(n.heads, head{update.TreeHead.TreeSize, update.ConsistencyProof.GetFromSize()})
			})
		}
	})
}

func watchTypeScript(ctx context.Context, t *testing.T, running *sync.WaitGroup, dir string, dev *chaos.Dev, way string, n *notes) {
	copyFile(t, filepath.Join("testdata", "watch.mjs"), dir)
	command := exec.Command("node", "watch.mjs", dev.Ready.URL, dev.Ready.APIKey, way)
	command.Dir = dir
	stdout := startUntil(ctx, t, running, command, n.name)
	running.Go(func() { n.read(t, stdout) })
}

// read takes down what watch.mjs writes.
func (n *notes) read(t *testing.T, stdout io.Reader) {
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var line struct {
			Event, State, Open, Interrupted string
			Head                            int64
			From                            *int64
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Errorf("%s: %v: %s", n.name, err, lines.Bytes())
			continue
		}
		n.mu.Lock()
		switch {
		case line.Event != "":
			n.states[line.Event] = append(n.states[line.Event], line.State)
		case line.Open != "":
			n.opened++
		case line.Interrupted != "":
			n.interruptions++
		default:
			from := int64(0)
			if line.From != nil {
				from = *line.From
			}
			n.heads = append(n.heads, head{line.Head, from})
		}
		n.mu.Unlock()
	}
}
