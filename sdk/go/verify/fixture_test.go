package verify_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const testOrigin = "log.example.com/log/1"

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// testLog is a log of its own, made with other code than the one under test: tlog instead of the merkle library.
type testLog struct {
	origin string
	key    ed25519.PrivateKey
	leaves [][]byte
	hashes []tlog.Hash
}

func newLog(origin string, seed byte) *testLog {
	return &testLog{origin: origin, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))}
}

func (l *testLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		out[i] = l.hashes[at]
	}
	return out, nil
}

func (l *testLog) add(t testing.TB, leaf []byte) int64 {
	t.Helper()
	hashes, err := tlog.StoredHashes(int64(len(l.leaves)), leaf, l)
	if err != nil {
		t.Fatal(err)
	}
	l.leaves, l.hashes = append(l.leaves, leaf), append(l.hashes, hashes...)
	return int64(len(l.leaves) - 1)
}

// fill adds leaves that nobody asks for, up to a size.
func (l *testLog) fill(t testing.TB, size int) {
	t.Helper()
	for len(l.leaves) < size {
		l.add(t, fmt.Appendf(nil, "leaf %d", len(l.leaves)))
	}
}

func (l *testLog) root(t testing.TB, size int64) tlog.Hash {
	t.Helper()
	root, err := tlog.TreeHash(size, l)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func (l *testLog) verifierKey() string { return vkey(l.origin, 1, l.public()) }

func (l *testLog) public() ed25519.PublicKey { return l.key.Public().(ed25519.PublicKey) }

func vkey(name string, kind byte, public []byte) string {
	return fmt.Sprintf("%s+%08x+%s", name, keyID(name, kind, public), base64.StdEncoding.EncodeToString(append([]byte{kind}, public...)))
}

func keyID(name string, kind byte, public []byte) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"+string(rune(kind))), public...))
	return binary.BigEndian.Uint32(sum[:])
}

func (l *testLog) text(t testing.TB, size int64) string {
	root := l.root(t, size)
	return fmt.Sprintf("%s\n%d\n%s\n", l.origin, size, base64.StdEncoding.EncodeToString(root[:]))
}

// checkpoint is signed as the log does, and by the others.
func (l *testLog) checkpoint(t testing.TB, size int64, others ...note.Signer) string {
	return signNote(t, l.text(t, size), append([]note.Signer{l.signer(), l.cosigner()}, others...)...)
}

func (l *testLog) signer() note.Signer   { return signer{l.origin, 1, l.key, testTime} }
func (l *testLog) cosigner() note.Signer { return signer{l.origin, 4, l.key, testTime} }

func signNote(t testing.TB, text string, signers ...note.Signer) string {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

// signer makes lines of type 0x01, 0x04 or, with bytes that no one can check, any other.
type signer struct {
	name string
	kind byte
	key  ed25519.PrivateKey
	at   time.Time
}

func (s signer) Name() string    { return s.name }
func (s signer) KeyHash() uint32 { return keyID(s.name, s.kind, s.key.Public().(ed25519.PublicKey)) }

func (s signer) Sign(text []byte) ([]byte, error) {
	if s.kind == 1 {
		return ed25519.Sign(s.key, text), nil
	}
	message := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", s.at.Unix(), text)
	return append(binary.BigEndian.AppendUint64(nil, uint64(s.at.Unix())), ed25519.Sign(s.key, message)...), nil
}

// pack makes the package of a leaf.
func (l *testLog) pack(t testing.TB, index, size int64) *verify.Package {
	t.Helper()
	path, err := tlog.ProveRecord(size, index, l)
	if err != nil {
		t.Fatal(err)
	}
	description, err := verify.DescribeLeaf(l.leaves[index])
	if err != nil {
		t.Fatal(err)
	}
	leafHash, root := tlog.RecordHash(l.leaves[index]), l.root(t, size)
	p := &verify.Package{
		Format: verify.Format, Origin: l.origin, LogID: "1", LeafIndex: index, TreeSize: size,
		Leaf: hex.EncodeToString(l.leaves[index]), LeafHash: hex.EncodeToString(leafHash[:]), RootHash: hex.EncodeToString(root[:]),
		Checkpoint: l.checkpoint(t, size), PublicKeys: []string{l.verifierKey()}, Attempt: description,
	}
	for _, hash := range path {
		p.AuditPath = append(p.AuditPath, hex.EncodeToString(hash[:]))
	}
	return p
}

func encode(t testing.TB, p *verify.Package) []byte {
	t.Helper()
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// attemptLog is a log of 40 leaves with an attempt as leaf 12.
func attemptLog(t testing.TB) *testLog {
	l := newLog(testOrigin, 1)
	l.fill(t, 12)
	l.add(t, marshal(t, &leafv1.Leaf{Nonce: filled(16, 0xa0), Kind: &leafv1.Leaf_Attempt{Attempt: testAttempt()}}))
	l.fill(t, 40)
	return l
}

func marshal(t testing.TB, leaf *leafv1.Leaf) []byte {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// filled is bytes that count up from first.
func filled(n int, first byte) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = first + byte(i)
	}
	return out
}

func testAttempt() *leafv1.Attempt {
	return &leafv1.Attempt{
		AttemptId: filled(16, 1), DeliveryId: filled(16, 2), EventId: filled(16, 3), TenantId: filled(16, 4),
		EndpointId: filled(16, 5), DestinationId: filled(16, 6), Number: 2,
		PayloadSha256: filled(32, 7), PayloadBytes: 1024, Url: "https://shop.example.com/hooks?a=1&b=<2>",
		ReceivedAt: timestamppb.New(testTime.Add(-9 * time.Second)), StartedAt: timestamppb.New(testTime.Add(-8 * time.Second)),
		Duration: durationpb.New(12345678 * time.Nanosecond), Outcome: leafv1.Outcome_OUTCOME_SUCCEEDED, StatusCode: 200,
		RequestHeadersSha256: filled(32, 8), ResponseSha256: filled(32, 9), ResponseBytes: 17, NodeId: filled(16, 10),
		IntakeVerification: "github",
	}
}

func testDeadLetter() *leafv1.DeadLetter {
	return &leafv1.DeadLetter{
		EventId: filled(16, 3), TenantId: filled(16, 4), EndpointId: filled(16, 5),
		Reason: leafv1.DeadLetterReason_DEAD_LETTER_REASON_MALFORMED_PAYLOAD, PayloadSha256: filled(32, 7), PayloadBytes: 3,
		ReceivedAt: timestamppb.New(testTime), DeadAt: timestamppb.New(testTime.Add(time.Microsecond)),
		DiagnosisSha256: filled(32, 11), NodeId: filled(16, 10),
	}
}

func testErasure() *leafv1.Erasure {
	return &leafv1.Erasure{
		ErasureId: filled(16, 12), TenantId: filled(16, 4), EventId: filled(16, 3), LeafIndexes: []uint64{0, 2},
		ErasedAt: timestamppb.New(testTime), ReasonSha256: filled(32, 13), NodeId: filled(16, 10),
	}
}
