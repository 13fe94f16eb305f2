package witness

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// maxRequests bounds the requests that are read and checked at once.
const maxRequests = 64

// ServerConfig is what a Server needs. All fields are required.
type ServerConfig struct {
	Name   string        // of the witness's key, such as "witness.example.com"
	Signer crypto.Signer // Ed25519
	// Logs are the verifier keys of the logs that it cosigns. A log may have several, while its key is rotated.
	Logs     []string
	StateDir string // exists, and belongs to this process alone (Lock)
	Logger   *slog.Logger
}

// Server is a witness, an http.Handler for POST /add-checkpoint. Before it answers, what it has cosigned is on disk: it
// never cosigns a tree that is not consistent with all that it cosigned before, whatever happens to the process.
type Server struct {
	ServerConfig
	logs  map[string]*followed // by origin; never changes
	state stateDir
	slots chan struct{}
}

// followed is a log that is followed.
type followed struct {
	keys []note.Verifier
	mu   sync.Mutex // one checkpoint at a time
}

// NewServer checks the configuration, and that the state of each log can be read.
func NewServer(cfg ServerConfig) (*Server, error) {
	s := &Server{ServerConfig: cfg, logs: make(map[string]*followed), state: stateDir(cfg.StateDir), slots: make(chan struct{}, maxRequests)}
	if err := checkpoint.CheckOrigin(cfg.Name); err != nil {
		return nil, fmt.Errorf("configure witness: its name: %w", err)
	}
	if len(cfg.Logs) == 0 {
		return nil, errors.New("configure witness: no log is given that it could follow")
	}
	for _, text := range cfg.Logs {
		key, err := note.NewVerifier(text)
		if err != nil {
			return nil, fmt.Errorf("configure witness: the log key %.200q: %w: want <origin>+<key id>+<base64>", text, err)
		}
		log := s.logs[key.Name()]
		if log == nil {
			log = new(followed)
			s.logs[key.Name()] = log
		}
		if slices.ContainsFunc(log.keys, func(k note.Verifier) bool { return k.KeyHash() == key.KeyHash() }) {
			return nil, fmt.Errorf("configure witness: the log key %.200q is given twice", text)
		}
		log.keys = append(log.keys, key)
		if _, err := s.state.get(key.Name()); err != nil {
			return nil, fmt.Errorf("configure witness: %w", err)
		}
	}
	return s, nil
}

// refusal is an answer other than a cosignature.
type refusal struct {
	status int
	reason string
	size   int64 // for a conflict about sizes
}

func (r *refusal) Error() string { return r.reason }

func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, reason: fmt.Sprintf(format, args...), size: -1}
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != addCheckpointPath:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "want POST", http.StatusMethodNotAllowed)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err != nil {
		http.Error(w, fmt.Sprintf("the request cannot be read: at most %d bytes", maxRequestBytes), http.StatusRequestEntityTooLarge)
		return
	}
	lines, err := s.addCheckpoint(string(body))
	var refused *refusal
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, lines)
	case !errors.As(err, &refused):
		s.Logger.ErrorContext(r.Context(), "checkpoint not cosigned", slog.Any("error", err))
		http.Error(w, "internal error", http.StatusInternalServerError)
	case refused.size >= 0:
		w.Header().Set("Content-Type", sizeContentType)
		w.WriteHeader(refused.status)
		fmt.Fprintf(w, "%d\n", refused.size)
	default:
		http.Error(w, refused.reason, refused.status)
	}
}

// addCheckpoint checks a request in the specification's order, stores the checkpoint, and returns its cosignature.
func (s *Server) addCheckpoint(body string) (string, error) {
	request, err := parseRequest(body)
	if err != nil {
		return "", refuse(http.StatusBadRequest, "%v", err)
	}
	origin, _, _ := strings.Cut(request.note, "\n")
	log := s.logs[origin]
	if log == nil {
		return "", refuse(http.StatusNotFound, "this witness does not follow a log of this origin")
	}
	opened, err := note.Open([]byte(request.note), note.VerifierList(log.keys...))
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified), errors.As(err, &invalid):
		return "", refuse(http.StatusForbidden, "no key of the log that this witness trusts has signed the checkpoint")
	case err != nil:
		return "", refuse(http.StatusBadRequest, "the checkpoint is not a signed note")
	}
	c, err := checkpoint.Parse(opened.Text)
	if err != nil {
		return "", refuse(http.StatusBadRequest, "%v", err)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	before, err := s.state.get(origin)
	if err != nil {
		return "", err
	}
	if err := s.check(request, before, c); err != nil {
		return "", err
	}
	if c != before.Checkpoint || before.note == "" {
		if err := s.state.put(seen{c, request.note}); err != nil {
			return "", err
		}
	}
	line, err := checkpoint.Cosign(opened.Text, s.Name, s.Signer, time.Now())
	if err != nil {
		return "", err
	}
	s.Logger.Info("cosigned", slog.String("origin", origin), slog.Int64("tree_size", c.Size), slog.Int64("from", before.Size))
	return line, nil
}

// check makes sure that the checkpoint continues what was cosigned before. A log that contradicts itself under its own
// signature is reported with both checkpoints, which prove it to anybody.
func (s *Server) check(request request, before seen, c checkpoint.Checkpoint) error {
	contradiction := func(says string) {
		s.Logger.Error("a log contradicts what it signed before, or a client sent a wrong proof", slog.String("origin", c.Origin), slog.String("what", says),
			slog.Int64("old", request.old), slog.String("cosigned_before", before.note), slog.String("submitted", request.note))
	}
	switch {
	case request.old > c.Size:
		return refuse(http.StatusBadRequest, "the old size %d is beyond the checkpoint's %d", request.old, c.Size)
	case request.old != before.Size:
		return &refusal{http.StatusConflict, "the old size is not the one that was cosigned last", before.Size}
	case c.Size == before.Size && c.Root != before.Root && c.Size > 0:
		contradiction("two roots of one size")
		return refuse(http.StatusConflict, "a checkpoint of this size with another root was cosigned")
	case c.Size == 0 && c.Root != merkle.EmptyRoot:
		return refuse(http.StatusUnprocessableEntity, "the root of an empty tree is another")
	case (request.old == 0 || request.old == c.Size) && len(request.proof) > 0:
		return refuse(http.StatusUnprocessableEntity, "the proof must be empty")
	case request.old == 0 || request.old == c.Size:
		return nil
	}
	if err := merkle.VerifyConsistency(before.Size, c.Size, request.proof, before.Root, c.Root); err != nil {
		contradiction("no consistency")
		return refuse(http.StatusUnprocessableEntity, "the proof does not lead from the tree of %d leaves that was cosigned to this one", before.Size)
	}
	return nil
}

// VerifierKey is the text by which logs and verifiers know the witness.
func (s *Server) VerifierKey() (string, error) {
	key, err := publicKey(s.Signer)
	if err != nil {
		return "", err
	}
	return checkpoint.CosignerKey(s.Name, key), nil
}
