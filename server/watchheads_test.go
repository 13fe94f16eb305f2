package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// watchProtocols are the ways in which a stream can be had.
var watchProtocols = map[string]struct {
	http2   bool
	options []connecthttp.Option
}{
	"Connect over HTTP/1.1":  {},
	"Connect over HTTP/2":    {http2: true},
	"gRPC over HTTP/2":       {http2: true, options: []connecthttp.Option{connecthttp.WithGRPC()}},
	"gRPC-Web over HTTP/1.1": {options: []connecthttp.Option{connecthttp.WithGRPCWeb()}},
}

// watcherClient makes a client of a server at url.
func watcherClient(t *testing.T, url string, http2 bool, options ...connecthttp.Option) kapselv1connect.AttestationServiceClient {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(transport.CloseIdleConnections)
	return kapselv1connect.NewAttestationServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, url, options...)))
}

// fed is a server of the rig's log alone, whose feed and bounds a test may change.
func (r *rig) fed(change func(*api, *headFeed)) (url string) {
	r.t.Helper()
	return r.fedAt(must(net.Listen("tcp", "127.0.0.1:0"))(r.t), streamWriteTimeout, change)
}

func (r *rig) fedAt(listener net.Listener, writeTimeout time.Duration, change func(*api, *headFeed)) (url string) {
	r.t.Helper()
	a := &api{Deps: r.deps, memory: &memory{max: maxRequestMemory, callTimeout: callTimeout}}
	feed := newHeadFeed(a)
	change(a, feed)
	rpc := connect.NewServer(a.translateErrors, validate)
	kapselv1connect.RegisterAttestationServiceHandler(rpc, &attestationService{api: a, feed: feed})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, rpc)
	server := NewHTTPServer(a.memory.bound(controlled(mux, writeTimeout)), nil, slog.NewLogLogger(r.deps.Logger.Handler(), slog.LevelDebug))
	server.quick.writeTimeout = writeTimeout
	var running sync.WaitGroup
	running.Go(func() { server.Serve(listener) })
	r.t.Cleanup(func() { server.Close(); running.Wait() })
	return "http://" + listener.Addr().String()
}

type headStream = kapselv1connect.AttestationServiceWatchTreeHeadsClientStream

// nextHead is the stream's next head, past heartbeats.
func nextHead(t *testing.T, stream headStream) *kapselv1.TreeHeadUpdate {
	t.Helper()
	for {
		message, err := stream.Receive()
		if err != nil {
			t.Fatalf("watch: %v", err)
		}
		if update := message.GetHead(); update != nil {
			return update
		}
	}
}

func watchHeads(t *testing.T, client kapselv1connect.AttestationServiceClient, known *int64) headStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream := must(client.WatchTreeHeads(ctx, &kapselv1.WatchTreeHeadsRequest{KnownSize: known}))(t)
	t.Cleanup(func() { cancel(); stream.Close() })
	return stream
}

// Every protocol: the first head at once, each later one with the proof from the one before, the node's stop as a reason to
// watch again, and from there on with the last size.
func TestHeadsAreWatchedOverEveryProtocol(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	_, first := r.sealedLog(a, 2)
	streams := make(map[string]headStream)
	last := make(map[string]*kapselv1.TreeHead)
	for name, protocol := range watchProtocols {
		streams[name] = watchHeads(t, watcherClient(t, r.url, protocol.http2, protocol.options...), nil)
		update := nextHead(t, streams[name])
		if update.TreeHead.TreeSize < first.TreeSize || update.ConsistencyProof != nil || update.TreeHead.Note == "" {
			t.Errorf("%s: first update %v", name, update)
		}
		last[name] = update.TreeHead
	}
	r.sealedLog(a, 9)
	for name, stream := range streams {
		for last[name].TreeSize < 9 {
			update := nextHead(t, stream)
			checkUpdate(t, name, last[name], update)
			last[name] = update.TreeHead
		}
	}
	for name, protocol := range watchProtocols { // resumed
		known := first.TreeSize
		update := nextHead(t, watchHeads(t, watcherClient(t, r.url, protocol.http2, protocol.options...), &known))
		checkUpdate(t, name+", resumed", first, update)
		_, err := watchHeads(t, watcherClient(t, r.url, protocol.http2, protocol.options...), proto.Int64(1<<40)).Receive()
		wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
	}
	r.stop()
	for name, stream := range streams {
		_, err := stream.Receive()
		if got := wantReason(t, err, connect.CodeUnavailable, "SHUTTING_DOWN"); got == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func checkUpdate(t *testing.T, name string, from *kapselv1.TreeHead, update *kapselv1.TreeHeadUpdate) {
	t.Helper()
	p := update.ConsistencyProof
	if p.GetFromSize() != from.TreeSize || p.GetToSize() != update.TreeHead.TreeSize {
		t.Fatalf("%s: proof from %d to %d: want %d to %d", name, p.GetFromSize(), p.GetToSize(), from.TreeSize, update.TreeHead.TreeSize)
	}
	err := merkle.VerifyConsistency(p.FromSize, p.ToSize, hashList(p.Hashes), merkle.Hash(from.RootHash), merkle.Hash(update.TreeHead.RootHash))
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

func TestWatchFromWhatIsKnownAlreadyAnswersAtOnce(t *testing.T) {
	r := newRig(t)
	_, head := r.sealedLog(r.tenant(), 3)
	client := watcherClient(t, r.url, true)
	same := nextHead(t, watchHeads(t, client, &head.TreeSize))
	if p := same.ConsistencyProof; p == nil || p.FromSize != p.ToSize || len(p.Hashes) != 0 || same.TreeHead.TreeSize != head.TreeSize {
		t.Errorf("from the latest size: %v", same)
	}
	empty := nextHead(t, watchHeads(t, client, proto.Int64(0)))
	if p := empty.ConsistencyProof; p == nil || p.FromSize != 0 || p.ToSize != head.TreeSize || len(p.Hashes) != 0 {
		t.Errorf("from the empty tree: %v", empty)
	}
	stream := must(client.WatchTreeHeads(t.Context(), &kapselv1.WatchTreeHeadsRequest{LogId: "2"}))(t)
	_, err := stream.Receive()
	wantReason(t, err, connect.CodeNotFound, "LOG_NOT_FOUND")
	stream.Close()
}

// Streams outlive the time that a request may take, and say that they are alive.
func TestQuietStreamsStayOpenWithHeartbeats(t *testing.T) {
	r := newRig(t)
	r.sealedLog(r.tenant(), 1)
	url := r.fed(func(a *api, feed *headFeed) {
		a.memory.callTimeout, feed.heartbeat = 200*time.Millisecond, 100*time.Millisecond
	})
	for name, protocol := range watchProtocols {
		t.Run(name, func(t *testing.T) {
			stream := watchHeads(t, watcherClient(t, url, protocol.http2, protocol.options...), nil)
			nextHead(t, stream)
			for range 6 {
				message, err := stream.Receive()
				if err != nil {
					t.Fatal(err)
				}
				if at := message.GetHeartbeat().GetTime(); at == nil || time.Since(at.AsTime()) > time.Minute {
					t.Errorf("got %v, want a heartbeat", message)
				}
			}
		})
	}
}

func TestWatchersAreBounded(t *testing.T) {
	r := newRig(t)
	r.sealedLog(r.tenant(), 1)
	var feed *headFeed
	url := r.fed(func(_ *api, f *headFeed) { f.most, feed = 3, f })
	client := watcherClient(t, url, true)
	open := make([]headStream, 3)
	for i := range open {
		open[i] = watchHeads(t, client, nil)
		nextHead(t, open[i])
	}
	_, err := watchHeads(t, client, nil).Receive()
	wantReason(t, err, connect.CodeUnavailable, "OVERLOADED")
	open[0].Close()
	r.eventually(func() bool { return feed.watchers.Load() == 2 }, func() string { return "a closed stream keeps its place" })
	nextHead(t, watchHeads(t, client, nil))
}

// Many watchers of one head: all get it, and the database is asked once for all of them, not once for each.
func TestWatchersShareTheWork(t *testing.T) {
	r := newRig(t)
	_, head := r.sealedLog(r.tenant(), 5)
	heads := tlog.NewHeads(r.deps.Reader)
	first := must(r.deps.Reader.List(t.Context(), head.TreeSize, 1))(t)[0]
	latest := must(r.deps.Reader.HeadAt(t.Context(), head.TreeSize))(t)
	heads.Publish(first)
	url := r.fed(func(a *api, _ *headFeed) { a.Heads = heads })
	client := watcherClient(t, url, true)
	const watchers = 200
	streams := make([]headStream, watchers)
	for i := range streams {
		streams[i] = watchHeads(t, client, nil)
		nextHead(t, streams[i])
	}
	before := r.deps.DB.RoundTrips()
	heads.Publish(latest)
	var group sync.WaitGroup
	for _, stream := range streams {
		group.Go(func() {
			message, err := stream.Receive()
			if err != nil || message.GetHead().GetTreeHead().GetTreeSize() != head.TreeSize {
				t.Errorf("got %v, %v", message, err)
			}
		})
	}
	group.Wait()
	if asked := r.deps.DB.RoundTrips() - before; asked > watchers/4 {
		t.Errorf("%d statements for one head of %d watchers", asked, watchers)
	}
}

// A client that stops reading misses heads, and gets the latest with one proof over all that it missed.
func TestSlowWatcherGetsTheLatestHead(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	r.sealedLog(a, 2)
	s := &attestationService{api: &api{Deps: r.deps}}
	feed := newHeadFeed(s.api)
	head, _, _ := r.deps.Heads.State()
	r.sealedLog(a, 12)
	latest, _, _ := r.deps.Heads.State()
	update := must(feed.update(t.Context(), head.Size, latest))(t).GetHead()
	checkUpdate(t, "over several heads", &kapselv1.TreeHead{TreeSize: head.Size, RootHash: head.Root[:]}, update)
	for from := range int64(3 * maxUpdates) { // made-up sizes do not fill memory
		feed.keep(span{from, latest.Size}, nil)
	}
	if len(feed.made) > maxUpdates {
		t.Errorf("%d updates are kept", len(feed.made))
	}
}
