package delivery

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/ledger"
)

// Whatever a destination does with its connection after an answer is no answer to the next request.
func TestConnectionsThatAreNotSilentAreNotUsedAgain(t *testing.T) {
	write := func(text string) func(*net.TCPConn) { return func(conn *net.TCPConn) { io.WriteString(conn, text) } }
	for _, test := range []struct {
		name, answer string
		then         func(*net.TCPConn)
		status       int
	}{
		{"it closes without a word", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", func(conn *net.TCPConn) { conn.CloseWrite() }, 200},
		{"a body where there is none", "HTTP/1.1 204 No Content\r\n\r\n", write("{}"), 204},
		{"one more answer", "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), 500},
		{"another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", nil, 101},
	} {
		t.Run(test.name, func(t *testing.T) {
			const attempts = 3
			var connections atomic.Int64
			read := make(chan struct{}, attempts)
			url := raw(t, func(conn *net.TCPConn) {
				connections.Add(1)
				readRequest(conn)
				io.WriteString(conn, test.answer)
				<-read
				if test.then != nil {
					test.then(conn)
				}
				io.Copy(io.Discard, conn)
			})
			sender, destination := newSender(t), newDestination(t, url)
			destination.Timeout = 2 * time.Second
			for range attempts {
				attempt := sender.Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: destination})
				read <- struct{}{}
				if attempt.StatusCode != test.status {
					t.Fatalf("status %d: %s", attempt.StatusCode, attempt.Diagnosis)
				}
				for _, conns := range sender.plain.idle {
					eventually(t, "what the destination does then is here", func() bool {
						return test.then == nil || len(conns) == 0 || !silent(conns[0].Conn)
					})
				}
			}
			if got := connections.Load(); got != attempts {
				t.Errorf("%d attempts used %d connections", attempts, got)
			}
		})
	}
}

// A destination may answer a large request, or none at all, before it has read it, and then read no more.
func TestDestinationThatStopsReadingIsHeard(t *testing.T) {
	const tooLarge = "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	for _, test := range []struct {
		name, answer string
		stays        bool
		want         leafv1.Failure
		status       int
	}{
		{"it answers and closes", tooLarge, false, leafv1.Failure_FAILURE_STATUS, 413},
		{"it answers and stays", tooLarge, true, leafv1.Failure_FAILURE_STATUS, 413},
		{"it stays", "", true, leafv1.Failure_FAILURE_TIMEOUT, 0},
		{"it closes", "", false, leafv1.Failure_FAILURE_PROTOCOL, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			ended := make(chan struct{})
			url := raw(t, func(conn *net.TCPConn) {
				conn.Read(make([]byte, 4096))
				io.WriteString(conn, test.answer)
				if test.stays {
					<-ended
				}
			})
			destination := newDestination(t, url)
			destination.Timeout = time.Second
			event := newEvent(bytes.Repeat([]byte("x"), 10<<20)) // more than the system takes in for both of them
			attempt := newSender(t).Send(t.Context(), Job{Duty: ledger.Duty{Event: event}, Destination: destination})
			close(ended)
			if attempt.Failure != test.want || attempt.StatusCode != test.status {
				t.Errorf("%v, status %d (%s): want %v, status %d", attempt.Failure, attempt.StatusCode, attempt.Diagnosis, test.want, test.status)
			}
		})
	}
}
