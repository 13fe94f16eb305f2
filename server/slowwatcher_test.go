package server

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// smallBuffers makes connections block as soon as a client does not read.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(1 << 10)
	}
	return conn, err
}

// watchRequest is the body of WatchTreeHeads as Connect JSON: an envelope with an empty message.
const watchRequest = "\x00\x00\x00\x00\x02{}"

const watchPath = "/kapsel.v1.AttestationService/WatchTreeHeads"

// Clients that ask for heads and then read nothing, each in its own way, are cut off when a message has waited for too long,
// and hold up nobody meanwhile.
func TestWatchersThatDoNotReadAreCutOffAndHoldUpNobody(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	r.sealedLog(a, 2)
	var feed *headFeed
	url := r.fedAt(smallBuffers{must(net.Listen("tcp", "127.0.0.1:0"))(t)}, 2*time.Second, func(_ *api, f *headFeed) {
		f.heartbeat, feed = time.Millisecond, f
	})
	reading := watchHeads(t, watcherClient(t, url, true), nil)
	last := nextHead(t, reading).TreeHead

	deaf := map[string]func(conn net.Conn){
		"HTTP/1.1, its connection full": func(conn net.Conn) {
			if err := conn.(*net.TCPConn).SetReadBuffer(1 << 10); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\nConnect-Protocol-Version: 1\r\nContent-Length: %d\r\n\r\n%s",
				watchPath, len(watchRequest), watchRequest)
		},
		"HTTP/2, its connection full": func(conn net.Conn) {
			if err := conn.(*net.TCPConn).SetReadBuffer(1 << 10); err != nil {
				t.Fatal(err)
			}
			watchOverHTTP2(t, conn, 1<<30)
		},
		"HTTP/2, its window shut": func(conn net.Conn) { watchOverHTTP2(t, conn, 0) },
	}
	for name, ask := range deaf {
		conn := must(net.Dial("tcp", strings.TrimPrefix(url, "http://")))(t)
		defer conn.Close()
		before := feed.watchers.Load()
		ask(conn)
		r.eventually(func() bool { return feed.watchers.Load() == before+1 }, func() string { return name + ": it does not watch" })
	}
	// While they block, and after that, the one that reads gets each new head.
	for range 2 {
		r.sealedLog(a, 1)
		r.eventually(func() bool { h, _ := r.deps.Heads.Latest(); return h.Size > last.TreeSize }, func() string { return "no new head" })
		update := nextHead(t, reading)
		checkUpdate(t, "the one that reads", last, update)
		last = update.TreeHead
	}
	// It is read from all the time, as its client's window fills too.
	for deadline := time.Now().Add(30 * time.Second); feed.watchers.Load() > 1; {
		if _, err := reading.Receive(); err != nil {
			t.Fatalf("the one that reads: %v", err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d watchers are left: want the one that reads", feed.watchers.Load())
		}
	}
	if _, err := reading.Receive(); err != nil {
		t.Errorf("the one that reads, afterwards: %v", err)
	}
}

// watchOverHTTP2 asks for heads, lets so many bytes of the answer's body come, and says nothing more.
func watchOverHTTP2(t *testing.T, conn net.Conn, window uint32) {
	t.Helper()
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":authority", "x"}, {":path", watchPath}, {"content-type", "application/connect+json"}, {"connect-protocol-version", "1"},
	} {
		encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	for _, err := range []error{
		framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}, http2.Setting{ID: http2.SettingEnablePush, Val: 0}),
		framer.WriteSettingsAck(),
		framer.WriteWindowUpdate(0, 1<<30),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		framer.WriteData(1, true, []byte(watchRequest)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Write(out.Bytes()); err != nil {
		t.Fatal(err)
	}
}
