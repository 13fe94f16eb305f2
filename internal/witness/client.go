package witness

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// Prove makes the consistency proof between two sizes of this log, published or not.
type Prove func(ctx context.Context, from, to int64) ([]merkle.Hash, error)

// AheadError says that a witness has cosigned a larger tree of this log than the one that it was asked for.
type AheadError struct {
	Witness string
	Size    int64
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("witness %s has seen a tree of %d leaves of this log, which is larger", e.Witness, e.Size)
}

// statusError is an answer that is neither a cosignature nor a size.
type statusError struct {
	status int
	text   string
	wait   time.Duration // Retry-After
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP status %d: %q", e.status, e.text) }

// refuses reports whether only people can change the answer: the log or its key is unknown, or a proof is wrong.
func (e *statusError) refuses() bool {
	switch e.status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// Client asks one witness. Not for concurrent use.
type Client struct {
	name string
	key  note.Verifier // cosignature/v1
	text string        // of the key
	url  string
	http *http.Client

	size int64 // what the witness has cosigned last, as far as is known
}

// newClient makes a client of the witness at a URL, to which /add-checkpoint is added.
func newClient(name, keyText string, key note.Verifier, prefix string) (*Client, error) {
	u, err := url.Parse(prefix)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the URL of witness %s is not http:// or https:// and a host", name)
	}
	return &Client{
		name: name, key: key, text: keyText, url: strings.TrimSuffix(prefix, "/") + addCheckpointPath,
		http: &http.Client{
			Timeout:       requestTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// cosign brings the witness from what it knows up to a head, and returns its verified cosignature, and with it any lines
// in its name of kinds that are not known here.
func (c *Client) cosign(ctx context.Context, head tlog.Head, prove Prove) ([]tlog.Cosignature, error) {
	for range 3 { // the size that is known may be wrong once, and another node may be faster once
		var proof []merkle.Hash
		if c.size > 0 && c.size < head.Size {
			var err error
			if proof, err = prove(ctx, c.size, head.Size); err != nil {
				return nil, fmt.Errorf("prove consistency: %w", err)
			}
		}
		answer, size, err := c.post(ctx, request{c.size, proof, head.Note})
		switch {
		case err != nil:
			return nil, err
		case size < 0:
			lines, err := c.read(head.Note, answer)
			if err != nil {
				return nil, err
			}
			c.size = head.Size
			return lines, nil
		case size > head.Size:
			return nil, &AheadError{c.name, size}
		}
		c.size = size
	}
	return nil, errors.New("it names another size each time")
}

// post sends a request. A size that is not negative is the one the witness names in a conflict.
func (c *Client) post(ctx context.Context, r request) (answer string, size int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(r.encode()))
	if err != nil {
		return "", -1, err
	}
	post.Header.Set("Content-Type", "text/plain; charset=utf-8")
	response, err := c.http.Do(post)
	if err != nil {
		return "", -1, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusSwitchingProtocols { // its body is the connection, without a deadline
		return "", -1, &statusError{status: response.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxResponseBytes+1))
	if err != nil {
		return "", -1, fmt.Errorf("read answer: %w", err)
	}
	if len(body) > maxResponseBytes {
		return "", -1, fmt.Errorf("the answer has more than %d bytes", maxResponseBytes)
	}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")) // a proxy may add a charset
	if response.StatusCode == http.StatusConflict && kind == sizeContentType {
		if size, err = parseSize(strings.TrimSuffix(string(body), "\n")); err != nil {
			return "", -1, errors.New("it answers a conflict without a size")
		}
		return "", size, nil
	}
	if response.StatusCode != http.StatusOK {
		wait, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return "", -1, &statusError{response.StatusCode, string(body[:min(len(body), 200)]), time.Duration(max(0, wait)) * time.Second}
	}
	return string(body), -1, nil
}

// possibleTime reports whether a verified cosignature is of a time that can be written. Verifiers refuse a proof package with one
// of another time, as of a witness that counts milliseconds.
func possibleTime(signature string) bool {
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return false
	}
	seconds, possible := checkpoint.CosignedAt(raw)
	return possible && seconds > 0
}

// read verifies an answer over the head's text.
func (c *Client) read(signed, answer string) ([]tlog.Cosignature, error) {
	end := strings.Index(signed, "\n\n")
	if end < 0 {
		return nil, errors.New("the head is not a signed note")
	}
	text := signed[:end+1]
	list, err := checkpoint.ParseSignatures(answer)
	if err != nil || len(list) > maxResponseLines {
		return nil, fmt.Errorf("the answer is not 1 to %d signature lines", maxResponseLines)
	}
	var lines []tlog.Cosignature
	var verified, other bool
	for _, s := range list {
		cosignature := tlog.Cosignature{Signature: s.Signature, Line: s.Line}
		switch {
		case s.Name != c.key.Name():
			continue // whoever it is, this log was not told to show it
		case s.Hash != c.key.KeyHash(): // another kind of key, perhaps ML-DSA-44: kept for those who know it
			if other || len(s.Line) > maxLineBytes {
				continue
			}
			other = true
		case verified:
			return nil, errors.New("the answer has two cosignatures of one key")
		default:
			opened, err := note.Open([]byte(text+"\n"+s.Line+"\n"), note.VerifierList(c.key))
			if err != nil || len(opened.Sigs) != 1 {
				return nil, errors.New("its cosignature does not verify")
			}
			if !possibleTime(s.Base64) {
				return nil, errors.New("its cosignature has no possible time: want seconds since 1970")
			}
			cosignature.VerifierKey, verified = c.text, true
		}
		lines = append(lines, cosignature)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("the answer has no cosignature of the key %s", c.text)
	}
	return lines, nil
}
