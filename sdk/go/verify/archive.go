package verify

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// ArchiveFormat is the value of a manifest's field "format".
const ArchiveFormat = "kapsel-proofs/v1"

const (
	manifestName     = "manifest.json"
	maxManifestBytes = 64 << 10
	archiveDirectory = "proofs/"
	archiveSuffix    = ".proof.json"
)

// Manifest is the last file of an archive: what it holds. It is not signed, and proves nothing: it makes an archive that
// was cut short tell itself from a whole one.
type Manifest struct {
	Format string `json:"format"`
	// Packages is how many packages the archive holds.
	Packages int64 `json:"packages"`
	// Origin and TreeSize are those of the head that all packages are for; "" and 0 without a package.
	Origin   string `json:"origin"`
	TreeSize int64  `json:"tree_size"`
	// From and To say which span of time was asked for, RFC 3339; "" is no bound.
	From string `json:"from"`
	To   string `json:"to"`
}

// ArchiveWriter writes proof packages as one gzip-compressed tar file: proofs/<leaf index>.proof.json each, in the order of
// the log, and a manifest at the end. What it holds in memory does not grow with the archive.
type ArchiveWriter struct {
	compressed *gzip.Writer
	files      *tar.Writer
	manifest   Manifest
	last       int64
}

// NewArchiveWriter begins an archive of the packages of a span of time, the zero time being no bound.
func NewArchiveWriter(w io.Writer, from, to time.Time) *ArchiveWriter {
	compressed := gzip.NewWriter(w)
	return &ArchiveWriter{
		compressed: compressed, files: tar.NewWriter(compressed), last: -1,
		manifest: Manifest{Format: ArchiveFormat, From: bound(from), To: bound(to)},
	}
}

func bound(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Add adds a package. It must be of the same head as those before it, and of a later leaf.
func (a *ArchiveWriter) Add(document []byte) error {
	p, err := Parse(document)
	if err != nil {
		return err
	}
	switch {
	case p.LeafIndex <= a.last:
		return fmt.Errorf("leaf %d is not after leaf %d", p.LeafIndex, a.last)
	case a.manifest.Packages > 0 && (p.Origin != a.manifest.Origin || p.TreeSize != a.manifest.TreeSize):
		return fmt.Errorf("leaf %d is not for the head of those before it", p.LeafIndex)
	}
	a.last, a.manifest.Origin, a.manifest.TreeSize = p.LeafIndex, p.Origin, p.TreeSize
	a.manifest.Packages++
	return a.file(archiveName(p.LeafIndex), document)
}

// Packages is how many packages were added.
func (a *ArchiveWriter) Packages() int64 { return a.manifest.Packages }

func (a *ArchiveWriter) file(name string, data []byte) error {
	if err := a.files.WriteHeader(fileHeader(name, int64(len(data)))); err != nil {
		return err
	}
	_, err := a.files.Write(data)
	return err
}

// Close writes the manifest and the end of the archive.
func (a *ArchiveWriter) Close() error {
	data, err := json.MarshalIndent(a.manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := a.file(manifestName, append(data, '\n')); err != nil {
		return err
	}
	return errors.Join(a.files.Close(), a.compressed.Close())
}

// archiveName has 16 digits, so that names sort as leaves do.
func archiveName(index int64) string {
	return fmt.Sprintf("%s%016d%s", archiveDirectory, index, archiveSuffix)
}

// ArchiveReport is what came out of the verification of an archive.
type ArchiveReport struct {
	Manifest Manifest
	// Full is true when every package is a full proof, and the archive is whole.
	Full bool
	// Packages that were verified, and of these the attempts by outcome, dead letters and erasures.
	Packages                                              int64
	Succeeded, Failed, Unknown, DeadLetters, ErasedLeaves int64
	// First and Last are when the earliest attempt began and the latest one did. Zero without any.
	First, Last time.Time
	// HeadTime is when the log signed the tree.
	HeadTime time.Time
}

// IsArchive reports whether data begins like an archive: it is compressed.
func IsArchive(data []byte) bool { return len(data) > 2 && data[0] == 0x1f && data[1] == 0x8b }

// VerifyArchive checks each package of an archive, and that none is missing of those that the manifest counts, in bounded
// memory. An *Error means that the archive was refused, and names the file; each, if not nil, is called with the report of
// every package before that.
func VerifyArchive(r io.Reader, options Options, each func(name string, report *Report) error) (*ArchiveReport, error) {
	compressed, err := gzip.NewReader(r)
	if err != nil {
		return nil, &Error{Check: CheckFormat, Reason: "the file is not a compressed archive"}
	}
	a := &archiveReader{report: &ArchiveReport{}, options: options, last: -1}
	files := &ustarReader{r: compressed}
	for {
		name, size, err := files.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, errNotPlain) {
			return a.report, &Error{Check: CheckFormat, Reason: fmt.Sprintf("%.100q: %v", name, err)}
		}
		if err != nil {
			return a.report, &Error{Check: CheckFormat, Reason: fmt.Sprintf("the archive breaks off after %d packages: %v", a.report.Packages, err)}
		}
		if err := a.take(name, io.LimitReader(compressed, size), size, each); err != nil {
			return a.report, err
		}
	}
	if !a.closed {
		return a.report, &Error{Check: CheckFormat, Reason: fmt.Sprintf("the archive has no manifest at its end: it was cut short after %d packages", a.report.Packages)}
	}
	if a.report.Packages == 0 {
		return a.report, &Error{Check: CheckFormat, Reason: "the archive holds no packages: it proves nothing"}
	}
	a.report.Full = a.full
	return a.report, nil
}

type archiveReader struct {
	report       *ArchiveReport
	options      Options
	last         int64
	head         *Package // the first one, whose head all are for
	full, closed bool
}

func (a *archiveReader) take(name string, r io.Reader, size int64, each func(string, *Report) error) error {
	refuse := func(format string, arguments ...any) error {
		return &Error{Check: CheckFormat, Reason: fmt.Sprintf("%.100q: ", name) + fmt.Sprintf(format, arguments...)}
	}
	limit := int64(MaxPackageBytes)
	if name == manifestName {
		limit = maxManifestBytes
	}
	switch {
	case a.closed:
		return refuse("comes after the manifest")
	case size > limit:
		return refuse("has more than %d bytes", limit)
	}
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) < size {
		return refuse("breaks off")
	}
	if name == manifestName {
		a.closed = true
		a.full = len(a.options.TrustedKeys) > 0
		if err := json.Unmarshal(data, &a.report.Manifest); err != nil || a.report.Manifest.Format != ArchiveFormat {
			return refuse("is not a manifest of %s", ArchiveFormat)
		}
		m, head := a.report.Manifest, a.head
		if m.Packages != a.report.Packages {
			return refuse("counts %d packages, and there are %d", m.Packages, a.report.Packages)
		}
		if head == nil {
			head = new(Package)
		}
		if m.Origin != head.Origin || m.TreeSize != head.TreeSize {
			return refuse("says log %.300q and %d leaves, and the packages say %q and %d", m.Origin, m.TreeSize, head.Origin, head.TreeSize)
		}
		return nil
	}
	report, err := Verify(data, a.options)
	if refused := (*Error)(nil); errors.As(err, &refused) {
		return &Error{Check: refused.Check, Reason: fmt.Sprintf("%.100q: %s", name, refused.Reason)}
	}
	if err != nil {
		return err
	}
	p := report.Package
	if a.head == nil {
		a.head = p
	}
	switch {
	case name != archiveName(p.LeafIndex):
		return refuse("is of leaf %d", p.LeafIndex)
	case p.LeafIndex <= a.last:
		return refuse("is not after leaf %d", a.last)
	case p.RootHash != a.head.RootHash || p.TreeSize != a.head.TreeSize || p.Origin != a.head.Origin:
		return refuse("is for another head than the packages before it")
	}
	a.last = p.LeafIndex
	a.report.count(report)
	if each != nil {
		return each(name, report)
	}
	return nil
}

func (a *ArchiveReport) count(report *Report) {
	a.Packages++
	a.HeadTime = report.HeadTime
	switch {
	case report.Leaf.GetDeadLetter() != nil:
		a.DeadLetters++
	case report.Leaf.GetErasure() != nil:
		a.ErasedLeaves += int64(len(report.Leaf.GetErasure().GetLeafIndexes()))
	}
	attempt := report.Leaf.GetAttempt()
	if attempt == nil {
		return
	}
	switch attempt.GetOutcome() {
	case leafv1.Outcome_OUTCOME_SUCCEEDED:
		a.Succeeded++
	case leafv1.Outcome_OUTCOME_UNKNOWN:
		a.Unknown++
	default:
		a.Failed++
	}
	if attempt.GetStartedAt() == nil {
		return
	}
	began := attempt.GetStartedAt().AsTime()
	if a.First.IsZero() || began.Before(a.First) {
		a.First = began
	}
	if began.After(a.Last) {
		a.Last = began
	}
}

// WriteText writes the report for people.
func (a *ArchiveReport) WriteText(w io.Writer) error {
	var out strings.Builder
	switch {
	case !a.Full:
		fmt.Fprintln(&out, "CONSISTENT, BUT THE KEY IS NOT CHECKED: whoever made this file may have made it all up.")
	default:
		fmt.Fprintf(&out, "FULL PROOF of %d records: the log has committed to each of them.\n", a.Packages)
	}
	fmt.Fprintf(&out, "\n  %d delivered, %d failed, %d of unknown end, %d dead letters", a.Succeeded, a.Failed, a.Unknown, a.DeadLetters)
	if a.ErasedLeaves > 0 {
		fmt.Fprintf(&out, ", %d records erased later", a.ErasedLeaves)
	}
	if !a.First.IsZero() {
		fmt.Fprintf(&out, "\n  Attempts from %s to %s", clock(a.First), clock(a.Last))
	}
	fmt.Fprintf(&out, "\n  Log %s, tree of %d leaves", plain(a.Manifest.Origin), a.Manifest.TreeSize)
	if !a.HeadTime.IsZero() {
		fmt.Fprintf(&out, ", signed %s", clock(a.HeadTime))
	}
	fmt.Fprintln(&out)
	_, err := io.WriteString(w, out.String())
	return err
}
