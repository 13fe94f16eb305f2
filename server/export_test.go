package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// export reads a whole stream, and the token after its first message.
func (r *rig) export(a account, request *kapselv1.ExportProofPackagesRequest) (packages []*kapselv1.ProofPackage, first string, err error) {
	r.t.Helper()
	stream, err := a.attestation.ExportProofPackages(r.t.Context(), request)
	if err != nil {
		return nil, "", err
	}
	defer stream.Close()
	for {
		message, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return packages, first, nil
		}
		if err != nil {
			return packages, first, err
		}
		if first == "" {
			first = message.ResumeToken
		}
		packages = append(packages, message.Packages...)
	}
}

func TestExportOfASpanIsAllForOneHead(t *testing.T) {
	r := newRig(t)
	a, other := r.tenant(), r.tenant()
	began := time.Now().Add(-time.Minute)
	events, _ := r.sealedLog(a, 130)
	r.sealedLog(other, 5)
	_, head := r.sealedLog(a, 3)
	for _, eventID := range events {
		r.event(a, eventID, kapselv1.EventState_EVENT_STATE_DELIVERED)
	}
	r.packages(a, events[len(events)-1])
	key := must(r.key.VerifierKey(testOrigin))(t)
	request := &kapselv1.ExportProofPackagesRequest{Recorded: &kapselv1.TimeRange{StartTime: timestamppb.New(began)}}
	packages, token, err := r.export(a, request)
	if err != nil || len(packages) < 133 {
		t.Fatalf("%d packages, %v", len(packages), err)
	}
	last, size := int64(-1), int64(-1)
	for _, p := range packages {
		report, err := verify.Verify(p.Json, verify.Options{TrustedKeys: []string{key}})
		if err != nil || !report.Full || p.LeafIndex <= last || size >= 0 && report.Package.TreeSize != size {
			t.Fatalf("leaf %d after %d: %v, tree size %d and %d", p.LeafIndex, last, err, report.Package.TreeSize, size)
		}
		last, size = p.LeafIndex, report.Package.TreeSize
	}
	if size < head.TreeSize {
		t.Errorf("for a head of %d leaves, want %d", size, head.TreeSize)
	}

	// Goes on where it was, for the same head, though there is a later one by now.
	r.sealedLog(a, 4)
	request.ResumeToken = token
	rest, _, err := r.export(a, request)
	if err != nil || len(rest) != len(packages)-exportPage {
		t.Fatalf("%d packages of %d after the first %d, %v", len(rest), len(packages), exportPage, err)
	}
	for i, p := range rest {
		if string(p.Json) != string(packages[exportPage+i].Json) {
			t.Fatalf("package of leaf %d differs after resuming", p.LeafIndex)
		}
	}
	for _, token := range []string{"x", token + "AA", token[:len(token)-2] + "AA"} {
		_, _, err = r.export(a, &kapselv1.ExportProofPackagesRequest{Recorded: request.Recorded, ResumeToken: token})
		wantReason(t, err, connect.CodeInvalidArgument, "INVALID_TOKEN")
	}
	_, _, err = r.export(other, &kapselv1.ExportProofPackagesRequest{Recorded: &kapselv1.TimeRange{}, ResumeToken: token})
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_TOKEN")
}

// A witness cosigns the head while an export of it is under way. What comes after that bears its line, and it is one archive.
func TestCosignaturesInTheMiddleOfAnExport(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	r.sealedLog(a, exportPage+20)
	key := must(r.key.VerifierKey(testOrigin))(t)
	request := &kapselv1.ExportProofPackagesRequest{Recorded: new(kapselv1.TimeRange)}
	ctx, cancel := context.WithCancel(t.Context())
	stream := must(a.attestation.ExportProofPackages(ctx, request))(t)
	first := must(stream.Receive())(t)
	cancel()
	stream.Close()
	if len(first.Packages) != exportPage {
		t.Fatalf("%d packages in the first message", len(first.Packages))
	}

	size := must(verify.Parse(first.Packages[0].Json))(t).TreeSize
	head := must(r.deps.Reader.HeadAt(t.Context(), size))(t)
	witness := must(torchwood.NewCosignatureSigner("witness.example.com", ed25519.NewKeyFromSeed(make([]byte, 32))))(t)
	text, _, _ := strings.Cut(head.Note, "\n\n")
	cosigned := must(note.Sign(&note.Note{Text: text + "\n"}, witness))(t)
	line := strings.Split(strings.TrimSpace(string(cosigned)), "\n")
	store := tlog.StoreCosignatures(r.db.Engine(), testLogID)
	err := store(t.Context(), size, []tlog.Cosignature{{
		Signature: note.Signature{Name: witness.Name()}, Line: line[len(line)-1], VerifierKey: witness.Verifier().String(),
	}})
	if err != nil {
		t.Fatal(err)
	}

	request.ResumeToken = first.ResumeToken
	rest, _, err := r.export(a, request)
	if err != nil || len(rest) < 20 {
		t.Fatalf("%d packages after the first ones, %v", len(rest), err)
	}
	var archive bytes.Buffer
	w := verify.NewArchiveWriter(&archive, time.Time{}, time.Time{})
	for i, p := range append(first.Packages, rest...) {
		report, err := verify.Verify(p.Json, verify.Options{TrustedKeys: []string{key}})
		if err != nil || !report.Full {
			t.Fatalf("leaf %d: %v", p.LeafIndex, err)
		}
		if got := len(report.Package.PublicKeys) == 2 && strings.Contains(report.Package.Checkpoint, line[len(line)-1]); got != (i >= exportPage) {
			t.Errorf("package %d, cosigned %t: %s", i, got, report.Package.Checkpoint)
		}
		if err := w.Add(p.Json); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := verify.VerifyArchive(&archive, verify.Options{TrustedKeys: []string{key}}, nil)
	if err != nil || !report.Full || report.Packages != int64(exportPage+len(rest)) {
		t.Errorf("as an archive: %+v, %v", report, err)
	}
}

func TestExportIsLimitedToWhatIsAskedFor(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	events, _ := r.sealedLog(a, 4)
	more, _ := r.sealedLog(a, 3)
	for _, eventID := range append(more, events...) {
		r.event(a, eventID, kapselv1.EventState_EVENT_STATE_DELIVERED)
		r.packages(a, eventID)
	}
	e := must(a.events.GetEvent(t.Context(), &kapselv1.GetEventRequest{EventId: events[0]}))(t).Event
	count := func(request *kapselv1.ExportProofPackagesRequest) int {
		t.Helper()
		packages, _, err := r.export(a, request)
		if err != nil {
			t.Fatal(err)
		}
		return len(packages)
	}
	if n := count(&kapselv1.ExportProofPackagesRequest{Recorded: &kapselv1.TimeRange{}, EndpointId: e.EndpointId}); n != 4 {
		t.Errorf("%d packages of one endpoint, want 4", n)
	}
	future := timestamppb.New(time.Now().Add(time.Hour))
	if n := count(&kapselv1.ExportProofPackagesRequest{Recorded: &kapselv1.TimeRange{StartTime: future}}); n != 0 {
		t.Errorf("%d packages of the future", n)
	}
	if n := count(&kapselv1.ExportProofPackagesRequest{Recorded: &kapselv1.TimeRange{EndTime: timestamppb.New(time.Unix(1e9, 0))}}); n != 0 {
		t.Errorf("%d packages of long ago", n)
	}
	// Retention drops whole days of payloads; what the log holds stays, and so do its proofs.
	conn := must(r.db.Engine().Acquire(t.Context()))(t)
	for _, sql := range []string{"set role none", "truncate events", "set role kapsel_engine"} {
		must(conn.Exec(t.Context(), sql))(t)
	}
	conn.Release()
	key := must(r.key.VerifierKey(testOrigin))(t)
	for _, p := range r.packages(a, events[0]) {
		verifyPackage(t, p.Json, key)
	}
	if n := count(&kapselv1.ExportProofPackagesRequest{Recorded: &kapselv1.TimeRange{}}); n != 7 {
		t.Errorf("%d packages after the payloads are gone, want 7", n)
	}
}
