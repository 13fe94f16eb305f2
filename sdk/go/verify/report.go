package verify

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"go.jetify.com/typeid/base32"
	"google.golang.org/protobuf/reflect/protoreflect"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string
	OK     bool
	Detail string
}

// Report is what came out of a verification.
type Report struct {
	// Full is true when all checks passed and the checkpoint is signed by a key that was given from outside.
	Full bool
	// Level says the same in words, one of the Level constants.
	Level string
	// Checks are those that were made, in order. After one that failed no other was made.
	Checks []Check
	// NotChecked names the keys ("<name>+<key id>") of additional signatures of a type that this version cannot check.
	NotChecked []string
	// Package is the package; its fields are the tree head.
	Package *Package
	// Leaf is the decoded leaf, nil if it was not read.
	Leaf *leafv1.Leaf
	// HeadTime is when the log signed the tree, to the second and by the log's own clock. Zero if the head does not say.
	HeadTime time.Time
	// Key is the verifier key whose signature was found: a trusted one if any was given.
	Key string
}

// WriteText writes the report for people: what was delivered, when, where and with what result, and what was checked.
func (r *Report) WriteText(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	out := &textWriter{w: table}
	switch {
	case r.Level == LevelRefused:
		out.line("REFUSED: this package proves nothing.")
	case !r.Full:
		out.line("CONSISTENT, BUT THE KEY IS NOT CHECKED: whoever made this file may have made it all up.")
	default:
		out.line("FULL PROOF: the log has committed to this record.")
	}
	if r.Leaf.GetAttempt() != nil {
		out.attempt(r.Leaf.GetAttempt())
	} else if r.Leaf.GetDeadLetter() != nil {
		out.deadLetter(r.Leaf.GetDeadLetter())
	} else if r.Leaf.GetErasure() != nil {
		out.erasure(r.Leaf.GetErasure())
	} else if r.Leaf.GetKeyRotation() != nil {
		out.rotation(r.Leaf.GetKeyRotation())
	}
	out.line("\nThe log")
	out.row("Origin", plain(r.Package.Origin))
	out.row("Leaf", fmt.Sprintf("%d of a tree of %d leaves", r.Package.LeafIndex, r.Package.TreeSize))
	out.row("Root", r.Package.RootHash)
	if !r.HeadTime.IsZero() {
		out.row("Signed", clock(r.HeadTime))
	}
	out.line("\nWhat was checked")
	for _, check := range r.Checks {
		mark := "ok"
		if !check.OK {
			mark = "WRONG"
		}
		out.row(check.Name, mark+"\t"+plain(check.Detail))
	}
	for _, name := range r.NotChecked {
		out.row("cosignature", "not checked\t"+plain(name)+" has a type that this version does not know")
	}
	if out.err != nil {
		return out.err
	}
	return table.Flush()
}

// textWriter writes lines and keeps the first error.
type textWriter struct {
	w   io.Writer
	err error
}

func (t *textWriter) line(text string) {
	if t.err == nil {
		_, t.err = io.WriteString(t.w, text+"\n")
	}
}

func (t *textWriter) row(name, text string) { t.line("  " + name + "\t" + text) }

func (t *textWriter) attempt(a *leafv1.Attempt) {
	t.line(fmt.Sprintf("\nAttempt %d of a delivery: %s", a.GetNumber(), result(a)))
	if a.GetStartedAt() != nil {
		t.row("When", fmt.Sprintf("%s, for %s", clock(a.GetStartedAt().AsTime()), a.GetDuration().AsDuration()))
	} else {
		t.row("When", "not known")
	}
	t.row("Where", plain(a.GetUrl()))
	t.payload(a.GetPayloadBytes(), a.GetPayloadSha256())
	t.row("Received", fmt.Sprintf("%s, signature check: %s", clock(a.GetReceivedAt().AsTime()), plain(a.GetIntakeVerification())))
	if len(a.GetResponseSha256()) > 0 {
		how := ""
		if a.GetResponseTruncated() {
			how = " of a longer one"
		}
		t.row("Response", fmt.Sprintf("%d bytes%s, SHA-256 %x", a.GetResponseBytes(), how, a.GetResponseSha256()))
	}
	t.id("Attempt", "att", a.GetAttemptId())
	t.id("Delivery", "dlv", a.GetDeliveryId())
	t.id("Event", "evt", a.GetEventId())
	t.id("Endpoint", "ep", a.GetEndpointId())
	t.id("Destination", "dst", a.GetDestinationId())
	t.id("Tenant", "tnt", a.GetTenantId())
	t.id("Node", "nod", a.GetNodeId())
}

func (t *textWriter) deadLetter(d *leafv1.DeadLetter) {
	t.line(fmt.Sprintf("\nDead letter: given up after %d attempts, %s", d.GetAttempts(), words("DEAD_LETTER_REASON_", d.GetReason())))
	t.row("When", clock(d.GetDeadAt().AsTime()))
	t.payload(d.GetPayloadBytes(), d.GetPayloadSha256())
	t.row("Received", clock(d.GetReceivedAt().AsTime()))
	t.row("Diagnosis", fmt.Sprintf("SHA-256 %x", d.GetDiagnosisSha256()))
	t.id("Delivery", "dlv", d.GetDeliveryId())
	t.id("Event", "evt", d.GetEventId())
	t.id("Endpoint", "ep", d.GetEndpointId())
	t.id("Destination", "dst", d.GetDestinationId())
	t.id("Tenant", "tnt", d.GetTenantId())
	t.id("Node", "nod", d.GetNodeId())
}

func (t *textWriter) erasure(e *leafv1.Erasure) {
	what := "all data of a tenant"
	if len(e.GetEventId()) > 0 {
		what = "an event"
	}
	t.line(fmt.Sprintf("\nErasure of %s, and with it of the bytes of %d leaves", what, len(e.GetLeafIndexes())))
	t.row("When", clock(e.GetErasedAt().AsTime()))
	if len(e.GetLeafIndexes()) > 0 {
		t.row("Leaves", strings.Trim(fmt.Sprint(e.GetLeafIndexes()), "[]"))
	}
	if len(e.GetReasonSha256()) > 0 {
		t.row("Reason", fmt.Sprintf("SHA-256 %x", e.GetReasonSha256()))
	}
	t.id("Erasure", "att", e.GetErasureId())
	t.id("Event", "evt", e.GetEventId())
	t.id("Tenant", "tnt", e.GetTenantId())
	t.id("Node", "nod", e.GetNodeId())
}

func (t *textWriter) payload(size uint64, digest []byte) {
	t.row("What", fmt.Sprintf("%d bytes, SHA-256 %x", size, digest))
}

// id leaves out what a leaf may leave out.
func (t *textWriter) id(name, prefix string, value []byte) {
	if len(value) == idBytes {
		t.row(name, prefix+"_"+base32.Encode([idBytes]byte(value)))
	}
}

// result says how an attempt ended.
func result(a *leafv1.Attempt) string {
	var text string
	switch a.GetOutcome() {
	case leafv1.Outcome_OUTCOME_SUCCEEDED:
		text = "delivered"
	case leafv1.Outcome_OUTCOME_UNKNOWN:
		text = "not known whether it arrived"
	default:
		text = "failed"
	}
	if a.GetFailure() != leafv1.Failure_FAILURE_UNSPECIFIED {
		text += ", " + words("FAILURE_", a.GetFailure())
	}
	if a.GetStatusCode() != 0 {
		text += fmt.Sprintf(", HTTP status %d", a.GetStatusCode())
	}
	if a.GetLate() {
		text += " (recorded late)"
	}
	return text
}

func words(prefix string, value protoreflect.Enum) string {
	var w writer
	return strings.ReplaceAll(w.word(prefix, value), "_", " ")
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999 MST") }

// plain makes text of unknown origin fit for a terminal.
func plain(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.QuoteToGraphic(text)
	}
	return text
}
