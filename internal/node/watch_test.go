package node

import (
	"context"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
)

// The node that does not seal tells its watchers of the other's heads, and streams do not hold up a stop.
func TestWatchersSeeOtherNodesHeadsAndDoNotHoldUpAStop(t *testing.T) {
	r := newRig(t)
	first := r.start(r.config())
	second := r.start(r.config())
	r.configure(5 * time.Second)
	r.refresh(first, second)
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	streams := make([]kapselv1connect.AttestationServiceWatchTreeHeadsClientStream, 2)
	for i, n := range []*Node{first, second} {
		client := kapselv1connect.NewAttestationServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, n.URL())))
		stream, err := client.WatchTreeHeads(ctx, &kapselv1.WatchTreeHeadsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		streams[i] = stream
	}
	r.settled(r.load(20, 0, func(int) *Node { return first }))
	for i, stream := range streams {
		for size := int64(0); size < 20; {
			message, err := stream.Receive()
			if err != nil {
				t.Fatalf("node %d, after %d leaves: %v", i, size, err)
			}
			size = max(size, message.GetHead().GetTreeHead().GetTreeSize())
		}
	}
	began := time.Now()
	r.stop(second)
	if took := time.Since(began); took > defaultDrainTimeout/2 {
		t.Errorf("with an open stream the stop took %v", took)
	}
	if _, err := streams[1].Receive(); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("the stream of the stopped node ended with %v, want UNAVAILABLE", err)
	}
}
