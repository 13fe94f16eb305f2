package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// tlogProofHeader is the first line of a C2SP tlog-proof file, version 1.
const tlogProofHeader = "c2sp.org/tlog-proof@v1\n"

// TlogProof writes the package as a C2SP tlog-proof file: leaf index, audit path and checkpoint. The leaf's bytes are its
// extra data, so that the file stands alone. What else a package says, its keys and the readable leaf, is not in it.
func (p *Package) TlogProof() ([]byte, error) {
	c, err := p.contents()
	if err != nil {
		return nil, fmt.Errorf("encode tlog-proof: %w", err)
	}
	out := []byte(tlogProofHeader)
	out = fmt.Appendf(out, "extra %s\nindex %d\n", base64.StdEncoding.EncodeToString(c.leaf), p.LeafIndex)
	for _, hash := range c.path {
		out = fmt.Appendf(out, "%s\n", base64.StdEncoding.EncodeToString(hash))
	}
	return append(append(out, '\n'), p.Checkpoint...), nil
}

// IsTlogProof reports whether data begins like a C2SP tlog-proof file.
func IsTlogProof(data []byte) bool { return bytes.HasPrefix(data, []byte(tlogProofHeader)) }

// tlogProof is such a file.
type tlogProof struct {
	extra      []byte // nil: there is none
	index      int64
	path       [][]byte
	checkpoint string
}

// VerifyTlogProof checks a C2SP tlog-proof file. leaf is the leaf that it is a proof of; nil: the file's extra data is, as
// [Package.TlogProof] writes it. Without a trusted key the file is refused, since it names none itself: a report of such
// a file is a full proof or a refusal. Cosignatures of keys that are not trusted are not checked, and say nothing.
func VerifyTlogProof(data, leaf []byte, options Options) (*Report, error) {
	trusted, err := parseKeys(options.TrustedKeys)
	if err != nil {
		return nil, fmt.Errorf("trusted %w", err)
	}
	file, err := parseTlogProof(data)
	if err != nil {
		return nil, &Error{Check: CheckFormat, Reason: err.Error()}
	}
	if leaf == nil {
		leaf = file.extra
	}
	if leaf == nil {
		return nil, &Error{Check: CheckLeaf, Reason: "the file has no leaf in it: say which one it is a proof of"}
	}
	h, lines, err := openCheckpoint(file.checkpoint, newRing(trusted...))
	if err != nil {
		return nil, &Error{Check: CheckCheckpoint, Reason: "the checkpoint " + err.Error()}
	}
	hash := rfc6962.DefaultHasher.HashLeaf(leaf)
	report := &Report{
		Level: LevelRefused,
		Package: &Package{
			Format: "c2sp.org/tlog-proof@v1", Origin: h.origin, LeafIndex: file.index, TreeSize: h.size, Leaf: hex.EncodeToString(leaf),
			LeafHash: hex.EncodeToString(hash), RootHash: hex.EncodeToString(h.root[:]), Checkpoint: file.checkpoint,
		},
	}
	if at := strings.LastIndexByte(h.origin, '/'); at >= 0 {
		report.Package.LogID = h.origin[at+1:]
	}
	for _, at := range file.path {
		report.Package.AuditPath = append(report.Package.AuditPath, hex.EncodeToString(at))
	}
	pass := func(check, format string, arguments ...any) {
		report.Checks = append(report.Checks, Check{check, true, fmt.Sprintf(format, arguments...)})
	}
	refuse := func(check, format string, arguments ...any) (*Report, error) {
		reason := fmt.Sprintf(format, arguments...)
		report.Checks = append(report.Checks, Check{check, false, reason})
		return report, &Error{Check: check, Reason: reason}
	}
	pass(CheckFormat, "C2SP tlog-proof, version 1")
	pass(CheckLeafHash, "SHA-256 of the leaf's bytes is %x", hash)
	if message, err := decodeLeaf(leaf); err == nil {
		if _, err := describe(message); err == nil {
			report.Leaf = message
		}
	}
	if h.size < 1 || file.index >= h.size ||
		proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(file.index), uint64(h.size), hash, file.path, h.root[:]) != nil {
		return refuse(CheckInclusion, "the audit path does not lead from the leaf, at index %d, to the root in a tree of %d leaves", file.index, h.size)
	}
	pass(CheckInclusion, "leaf %d is in the tree of %d leaves with root %x", file.index, h.size, h.root)
	at := slices.IndexFunc(trusted, func(k key) bool { return k.name == h.origin && find(lines, k, typeEd25519) != nil })
	if at < 0 {
		return refuse(CheckSignature, "no trusted key has signed the checkpoint as %.300q", h.origin)
	}
	report.Key = trusted[at].text()
	pass(CheckSignature, "Ed25519, by the trusted key %s", report.Key)
	if l := find(lines, trusted[at], typeCosignature); l != nil {
		report.HeadTime = l.at
		pass(CheckTime, "the log signed this tree at %s", l.at.Format(time.RFC3339))
	}
	report.Level, report.Full = LevelFull, true
	return report, nil
}

func parseTlogProof(data []byte) (*tlogProof, error) {
	if len(data) > MaxPackageBytes {
		return nil, fmt.Errorf("the file has more than %d bytes", MaxPackageBytes)
	}
	if !IsTlogProof(data) {
		return nil, errors.New("the file does not begin with c2sp.org/tlog-proof@v1")
	}
	head, checkpoint, found := strings.Cut(string(data[len(tlogProofHeader):]), "\n\n")
	if !found {
		return nil, errors.New("there is no empty line before the checkpoint")
	}
	file := &tlogProof{checkpoint: checkpoint}
	lines := strings.Split(head, "\n")
	if text, ok := strings.CutPrefix(lines[0], "extra "); ok {
		extra, err := decodeBase64(text)
		if err != nil {
			return nil, errors.New("the extra data is not base64")
		}
		file.extra, lines = append([]byte{}, extra...), lines[1:]
	}
	if len(lines) == 0 {
		return nil, errors.New("there is no index")
	}
	text, ok := strings.CutPrefix(lines[0], "index ")
	index, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || index < 0 || index > maxInteger || strconv.FormatInt(index, 10) != text {
		return nil, fmt.Errorf("%.40q is not the line of an index up to %d", lines[0], int64(maxInteger))
	}
	file.index = index
	if lines = lines[1:]; len(lines) > maxPathHashes {
		return nil, fmt.Errorf("there are %d hashes: at most %d", len(lines), maxPathHashes)
	}
	for i, line := range lines {
		hash, err := decodeBase64(line)
		if err != nil || len(hash) != hashBytes {
			return nil, fmt.Errorf("hash %d is not the base64 of %d bytes", i+1, hashBytes)
		}
		file.path = append(file.path, hash)
	}
	return file, nil
}
