package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Bounds on what a peer may make the harness hold or read.
const (
	firstBufferBytes = 8 << 10
	maxHeadBytes     = 64 << 10
	maxBodyBytes     = 16 << 20
)

var (
	errMalformed    = errors.New("malformed HTTP message")
	errHeadTooLarge = fmt.Errorf("head over %d bytes", maxHeadBytes)
	errBodyTooLarge = fmt.Errorf("body over %d bytes", maxBodyBytes)
)

// fields are the header fields that frame a message or ask for patience; the rest is
// skipped unread.
type fields struct {
	contentLength int64 // -1 when absent
	chunked       bool
	close         bool          // the connection ends with this message
	retryAfter    time.Duration // 0 when absent or a date
}

// parseFields reads the header lines of an HTTP/1.1 head, start line excluded.
func parseFields(lines []byte) (fields, error) {
	f := fields{contentLength: -1}
	for len(lines) > 0 {
		var line []byte
		line, lines, _ = bytes.Cut(lines, []byte("\r\n"))
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return f, fmt.Errorf("%w: header line without a name", errMalformed)
		}
		// The lengths tell the four names apart from most others without a comparison.
		name := line[:colon]
		switch len(name) {
		case len("Connection"):
			if bytes.EqualFold(name, []byte("Connection")) {
				for option := range bytes.SplitSeq(line[colon+1:], []byte(",")) {
					f.close = f.close || bytes.EqualFold(bytes.TrimSpace(option), []byte("close"))
				}
			}
		case len("Retry-After"):
			if bytes.EqualFold(name, []byte("Retry-After")) {
				s, err := strconv.ParseUint(string(bytes.TrimSpace(line[colon+1:])), 10, 31)
				if err == nil {
					f.retryAfter = time.Duration(s) * time.Second
				}
			}
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				n, err := strconv.ParseUint(string(bytes.TrimSpace(line[colon+1:])), 10, 63)
				if err != nil || (f.contentLength >= 0 && f.contentLength != int64(n)) {
					return f, fmt.Errorf("%w: Content-Length", errMalformed)
				}
				f.contentLength = int64(n)
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				if !bytes.EqualFold(bytes.TrimSpace(line[colon+1:]), []byte("chunked")) {
					return f, fmt.Errorf("%w: Transfer-Encoding", errMalformed)
				}
				f.chunked = true
			}
		}
	}
	return f, nil
}

// stream reads HTTP/1.1 messages from one connection. What comes behind a message
// stays in its buffer for the next one.
type stream struct {
	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] is read but not yet consumed
}

func newStream(src io.Reader) *stream {
	return &stream{src: src, buf: make([]byte, firstBufferBytes)}
}

// head returns start line and header lines, both without their last CRLF. The bytes are
// good until the next call. The error is io.EOF only when the peer closed between messages.
func (s *stream) head() (start, lines []byte, err error) {
	scanned := 0
	for {
		// Step back over a terminator that a read may have cut in two.
		from := s.r + max(scanned-3, 0)
		if i := bytes.Index(s.buf[from:s.w], []byte("\r\n\r\n")); i >= 0 {
			whole := s.buf[s.r : from+i]
			s.r = from + i + 4
			start, lines, _ = bytes.Cut(whole, []byte("\r\n"))
			return start, lines, nil
		}
		scanned = s.w - s.r
		if scanned >= maxHeadBytes {
			return nil, nil, errHeadTooLarge
		}
		if err := s.fill(); err != nil {
			if err == io.EOF && scanned > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, nil, err
		}
	}
}

// body consumes a body that is framed by f, copies its first bytes into peek and returns
// how many these are. toEOF says that without a length it ends with the connection, as a
// response does (RFC 9112 section 6.3).
func (s *stream) body(f fields, toEOF bool, peek []byte) (int, error) {
	switch {
	case f.chunked:
		return s.chunks(peek)
	case f.contentLength > maxBodyBytes:
		return 0, errBodyTooLarge
	case f.contentLength >= 0:
		return s.take(f.contentLength, peek)
	case toEOF:
		n, err := s.take(maxBodyBytes+1, peek)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return n, nil
		}
		return n, errors.Join(err, errBodyTooLarge)
	default:
		return 0, nil
	}
}

// chunks reads a chunked body with its trailers (RFC 9112 section 7.1).
func (s *stream) chunks(peek []byte) (int, error) {
	peeked, total := 0, int64(0)
	for {
		line, err := s.line()
		if err != nil {
			return peeked, err
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 63)
		if err != nil {
			return peeked, fmt.Errorf("%w: chunk size", errMalformed)
		}
		if n == 0 {
			break
		}
		if n > maxBodyBytes || total+int64(n) > maxBodyBytes {
			return peeked, errBodyTooLarge
		}
		total += int64(n)
		k, err := s.take(int64(n), peek[peeked:])
		peeked += k
		if err != nil {
			return peeked, err
		}
		if line, err = s.line(); err != nil {
			return peeked, err
		}
		if len(line) != 0 {
			return peeked, fmt.Errorf("%w: chunk end", errMalformed)
		}
	}
	for trailers := 0; trailers < maxHeadBytes; {
		line, err := s.line()
		if err != nil || len(line) == 0 {
			return peeked, err
		}
		trailers += len(line)
	}
	return peeked, errHeadTooLarge
}

// line returns the next line without its CRLF.
func (s *stream) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(s.buf[s.r:s.w], '\n'); i >= 0 {
			line := s.buf[s.r : s.r+i]
			s.r += i + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if s.w-s.r >= maxHeadBytes {
			return nil, errHeadTooLarge
		}
		if err := s.fill(); err != nil {
			return nil, unexpected(err)
		}
	}
}

// take consumes n bytes, the first of them into peek.
func (s *stream) take(n int64, peek []byte) (int, error) {
	peeked := 0
	for n > 0 {
		if s.r == s.w {
			if err := s.fill(); err != nil {
				return peeked, unexpected(err)
			}
		}
		have := s.buf[s.r : s.r+int(min(n, int64(s.w-s.r)))]
		peeked += copy(peek[peeked:], have)
		s.r += len(have)
		n -= int64(len(have))
	}
	return peeked, nil
}

// fill reads once, after making room.
func (s *stream) fill() error {
	switch {
	case s.r == s.w:
		s.r, s.w = 0, 0
	case s.w == len(s.buf) && s.r > 0:
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	case s.w == len(s.buf):
		// Heads and lines stop at maxHeadBytes, so this doubles a few times at most.
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	n, err := s.src.Read(s.buf[s.w:])
	s.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseStatus reads "HTTP/1.1 202 Accepted". old says that the peer speaks HTTP/1.0, whose
// connections end with each answer.
func parseStatus(line []byte) (status int, old bool, err error) {
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return 0, false, fmt.Errorf("%w: status line", errMalformed)
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, false, fmt.Errorf("%w: status line", errMalformed)
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 {
		return 0, false, fmt.Errorf("%w: status line", errMalformed)
	}
	return status, line[7] == '0', nil
}
