package witness

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// maxWitnesses bounds a policy: each has a connection, and a line in each head.
const maxWitnesses = 32

// Policy says which witnesses there are, and which of them make a quorum.
type Policy struct {
	clients []*Client
	quorum  torchwood.Policy
}

// ParsePolicy reads the witness policy format that Sigsum and Tessera use:
//
//	witness one   witness.one.example+8b2b3a0f+BCcf…   https://witness.one.example/
//	witness two   witness.two.example+5d9a1f6e+BLxw…   https://two.example/w
//	witness three …
//	group   most 2 one two three
//	quorum  most
//
// "any" and "all" may stand for a group's number, groups may hold groups, and "quorum none" only gathers what comes. A witness or
// a group is in one group at most, so that none counts twice. Each witness needs its URL here.
func ParsePolicy(text string) (*Policy, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("read witness policy: it is not UTF-8 text")
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		// Of white space, torchwood expects blanks and tabs only: it panics at an empty line that ends in CR.
		line, _, _ = strings.Cut(line, "#")
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	parsed, err := torchwood.ParsePolicy([]byte(strings.Join(lines, "\n")))
	if err != nil {
		return nil, fmt.Errorf("read witness policy: %w", err)
	}
	p := &Policy{quorum: parsed}
	keys, grouped := make(map[string]bool), make(map[string]bool)
	for i, line := range lines {
		fields := strings.Fields(line)
		if len(fields) > 0 && fields[0] == "log" {
			return nil, fmt.Errorf("read witness policy: line %d: the log is this one, and is not named here", i+1)
		}
		if err := checkNames(fields, grouped); err != nil {
			return nil, fmt.Errorf("read witness policy: line %d: %w", i+1, err)
		}
		if len(fields) == 0 || fields[0] != "witness" {
			continue
		}
		if len(fields) != 4 {
			return nil, fmt.Errorf("read witness policy: line %d: want witness <name> <verifier key> <URL>", i+1)
		}
		key, err := torchwood.NewCosignatureVerifier(fields[2])
		if err != nil {
			return nil, fmt.Errorf("read witness policy: line %d: %w", i+1, err)
		}
		text := key.String() // its only spelling, which proof packages have
		client, err := newClient(fields[1], text, key, fields[3])
		if err != nil {
			return nil, fmt.Errorf("read witness policy: line %d: %w", i+1, err)
		}
		if keys[text] {
			return nil, fmt.Errorf("read witness policy: line %d: the key is there twice", i+1)
		}
		keys[text] = true
		p.clients = append(p.clients, client)
	}
	switch {
	case len(p.clients) == 0:
		return nil, errors.New("read witness policy: it names no witness")
	case len(p.clients) > maxWitnesses:
		return nil, fmt.Errorf("read witness policy: more than %d witnesses", maxWitnesses)
	}
	return p, nil
}

// checkNames refuses what torchwood takes: a name that a quorum cannot have, and a witness or group that counts twice.
func checkNames(fields []string, grouped map[string]bool) error {
	if len(fields) > 1 && fields[0] != "quorum" && fields[1] == "none" {
		return errors.New("\"none\" is the quorum of nobody, and no name")
	}
	if len(fields) < 4 || fields[0] != "group" {
		return nil
	}
	for _, name := range fields[3:] {
		if grouped[name] {
			return fmt.Errorf("%s is in a group already, and would count twice", name)
		}
		grouped[name] = true
	}
	return nil
}

// met reports whether verified cosignatures make the quorum, and why not.
func (p *Policy) met(lines []tlog.Cosignature) error {
	var verified []note.Signature
	for _, line := range lines {
		if line.VerifierKey != "" {
			verified = append(verified, line.Signature)
		}
	}
	return p.quorum.Check("", verified)
}
