package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// quickRig is an HTTPServer that tells what its handler got, and by which of its two ways.
type quickRig struct {
	t      *testing.T
	server *HTTPServer
	addr   string
	logged chan string // what the server logs
	served chan error
	hold   atomic.Pointer[chan struct{}] // not nil: the handler waits for it
	began  chan struct{}
	others atomic.Int64 // requests that net/http had
}

func newQuickRig(t *testing.T) *quickRig {
	r := &quickRig{t: t, logged: make(chan string, 10), served: make(chan error, 1), began: make(chan struct{}, 100)}
	r.server = NewHTTPServer(http.HandlerFunc(r.handle), nil, log.New(r, "", 0))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = listener.Addr().String()
	go func() { r.served <- r.server.Serve(listener) }()
	t.Cleanup(func() {
		r.server.Close()
		if err := <-r.served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
		goleak.VerifyNone(t, goleak.IgnoreCurrent())
	})
	return r
}

func (r *quickRig) Write(line []byte) (int, error) {
	r.logged <- string(line)
	return len(line), nil
}

func (r *quickRig) handle(w http.ResponseWriter, request *http.Request) {
	if _, quick := w.(*quickWriter); !quick {
		r.others.Add(1)
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.began <- struct{}{}
	if hold := r.hold.Load(); hold != nil {
		<-*hold
	}
	switch request.URL.Path {
	case "/ingest/panic":
		panic("as asked")
	case "/ingest/close":
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("X-Length", fmt.Sprint(request.ContentLength))
	fmt.Fprintf(w, "%s %s %s %s", request.Method, request.URL, request.Header.Get("X-Name"), body)
}

func (r *quickRig) dial() (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, bufio.NewReader(conn)
}

func plainRequest(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nX-Name: n\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func (r *quickRig) wantAnswer(from *bufio.Reader, want string) *http.Response {
	r.t.Helper()
	response, err := http.ReadResponse(from, nil)
	if err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != want {
		r.t.Fatalf("got %.100q, %v, want %.100q", body, err, want)
	}
	if response.Header.Get("Date") == "" {
		r.t.Error("no Date")
	}
	return response
}

func (r *quickRig) wantEnd(from *bufio.Reader) {
	r.t.Helper()
	if _, err := from.ReadByte(); !errors.Is(err, io.EOF) {
		r.t.Errorf("the connection goes on: %v", err)
	}
}

func TestPlainWebhooksAreServedHoweverTheyArrive(t *testing.T) {
	r := newQuickRig(t)
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 1000, 3900, 4096, 5000, 40_000, 70_000} {
		conn, in := r.dial()
		body := strings.Repeat("x", size)
		message := strings.Repeat(plainRequest("/ingest/ep_1", body), 3)
		go func() {
			for len(message) > 0 {
				n := min(len(message), 1+random.IntN(3000))
				io.WriteString(conn, message[:n])
				message = message[n:]
			}
		}()
		for range 3 {
			response := r.wantAnswer(in, "POST /ingest/ep_1 n "+body)
			if got := response.Header.Get("X-Length"); got != fmt.Sprint(size) {
				t.Errorf("the handler was told a length of %s, want %d", got, size)
			}
		}
	}
	if r.others.Load() != 3 {
		t.Errorf("net/http served %d requests, want the 3 that are larger than the buffer's bound", r.others.Load())
	}
	r.wantGivenBack()
}

// wantGivenBack waits until the server has counted all large buffers as given back, which it does after the answer.
func (r *quickRig) wantGivenBack() {
	r.t.Helper()
	for until := time.Now().Add(5 * time.Second); r.server.quick.grown.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			r.t.Fatalf("%d bytes are not given back", r.server.quick.grown.Load())
		}
	}
}

func TestOtherRequestsOfAConnectionGoToNetHTTP(t *testing.T) {
	r := newQuickRig(t)
	conn, in := r.dial()
	io.WriteString(conn, plainRequest("/ingest/ep_1", "one")+
		"POST /ingest/ep_2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"+
		plainRequest("/ingest/ep_3", "three")+"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
	r.wantAnswer(in, "POST /ingest/ep_1 n one")
	r.wantAnswer(in, "POST /ingest/ep_2  two")
	r.wantAnswer(in, "POST /ingest/ep_3 n three")
	r.wantAnswer(in, "GET /livez  ")
	if r.others.Load() != 3 {
		t.Errorf("net/http served %d requests, want those from the first odd one on", r.others.Load())
	}

	// A client that expects 100-continue gets it.
	conn, in = r.dial()
	io.WriteString(conn, "POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if line, _ := in.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("got %q", line)
	}
	in.ReadString('\n')
	io.WriteString(conn, "hi")
	r.wantAnswer(in, "POST /ingest/ep_1  hi")

	// Garbage is refused by net/http.
	conn, in = r.dial()
	io.WriteString(conn, "POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi")
	response, err := http.ReadResponse(in, nil)
	if err != nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("got %v, %v", response, err)
	}
}

func TestLateBodyIsLeftToNetHTTP(t *testing.T) {
	r := newQuickRig(t)
	conn, in := r.dial()
	message := plainRequest("/ingest/ep_1", "late")
	io.WriteString(conn, message[:len(message)-2])
	time.Sleep(quickPatience + 200*time.Millisecond)
	io.WriteString(conn, message[len(message)-2:])
	r.wantAnswer(in, "POST /ingest/ep_1 n late")
	if r.others.Load() != 1 {
		t.Errorf("net/http served %d requests, want 1", r.others.Load())
	}
}

func TestSilentNewConnectionIsClosed(t *testing.T) {
	r := newQuickRig(t)
	_, in := r.dial()
	began := time.Now()
	r.wantEnd(in)
	if took := time.Since(began); took > 3*readHeaderTimeout {
		t.Errorf("closed after %v", took)
	}
}

func TestConnectionEndsAsTheHandlerWishes(t *testing.T) {
	r := newQuickRig(t)
	conn, in := r.dial()
	io.WriteString(conn, plainRequest("/ingest/close", "x"))
	if response := r.wantAnswer(in, "POST /ingest/close n x"); !response.Close {
		t.Error("the answer does not say that the connection ends")
	}
	r.wantEnd(in)

	conn, in = r.dial()
	io.WriteString(conn, plainRequest("/ingest/panic", "x"))
	r.wantEnd(in)
	if line := <-r.logged; !strings.Contains(line, "as asked") {
		t.Errorf("the panic is not logged: %q", line)
	}
	conn, in = r.dial()
	io.WriteString(conn, plainRequest("/ingest/ep_1", "x"))
	r.wantAnswer(in, "POST /ingest/ep_1 n x")
}

func TestShutdownAnswersWhatIsUnderWay(t *testing.T) {
	r := newQuickRig(t)
	resting, restingIn := r.dial()
	io.WriteString(resting, plainRequest("/ingest/ep_1", "x"))
	r.wantAnswer(restingIn, "POST /ingest/ep_1 n x")
	<-r.began
	hold := make(chan struct{})
	r.hold.Store(&hold)
	busy, busyIn := r.dial()
	io.WriteString(busy, plainRequest("/ingest/ep_1", "y")+plainRequest("/ingest/ep_1", "z"))
	<-r.began

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.server.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown does not wait for a request: %v", err)
	}
	r.wantEnd(restingIn)
	close(hold)
	if err := r.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if response := r.wantAnswer(busyIn, "POST /ingest/ep_1 n y"); !response.Close {
		t.Error("the answer does not say that the connection ends")
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("a new connection is accepted")
	}
}

func TestManyConnectionsAtOnceAndItsEnd(t *testing.T) {
	r := newQuickRig(t)
	var group sync.WaitGroup
	for i := range 50 {
		conn, in := r.dial()
		group.Go(func() {
			for j := range 20 {
				body := fmt.Sprint(i, j)
				io.WriteString(conn, plainRequest("/ingest/ep_1", body))
				<-r.began
				response, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Error(err)
					return
				}
				got, _ := io.ReadAll(response.Body)
				if string(got) != "POST /ingest/ep_1 n "+body {
					t.Errorf("got %q for %q", got, body)
				}
			}
		})
	}
	group.Wait()
	if r.others.Load() != 0 {
		t.Errorf("net/http served %d plain requests", r.others.Load())
	}
}
