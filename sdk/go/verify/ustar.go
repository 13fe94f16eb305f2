package verify

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strconv"
)

const (
	blockBytes = 512
	// maxAfterEnd bounds what is read behind an archive's end, to come to the sum that its compression ends with.
	maxAfterEnd = 1 << 20
)

// fileHeader is that of each file in an archive.
func fileHeader(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Mode: 0o644, Size: size, Format: tar.FormatPAX}
}

// ustarReader reads the files of an archive, each of which must have the very header that an ArchiveWriter gives it: what readers
// of tar files think differently about is refused.
type ustarReader struct {
	r       io.Reader
	padding int64 // behind the file that was read last
}

// errNotPlain: a header that an ArchiveWriter would not write.
var errNotPlain = errors.New("is not a plain file, as kapsel export writes them")

// next returns the next file, io.EOF at the end, and errNotPlain with a name.
func (u *ustarReader) next() (name string, size int64, err error) {
	padding, err := u.read(u.padding)
	if err == nil && !zero(padding) {
		err = errors.New("there are bytes between two files")
	}
	if err != nil {
		return "", 0, err
	}
	block, err := u.read(blockBytes)
	switch {
	case err != nil:
		return "", 0, err
	case len(block) == 0:
		return "", 0, io.EOF
	case len(block) < blockBytes:
		return "", 0, io.ErrUnexpectedEOF
	case zero(block):
		return "", 0, u.end()
	}
	field, _, _ := bytes.Cut(block[:100], []byte{0})
	name = string(field)
	size, err = strconv.ParseInt(string(block[124:135]), 8, 64)
	if err != nil {
		return name, 0, errNotPlain
	}
	var want bytes.Buffer
	if err := tar.NewWriter(&want).WriteHeader(fileHeader(name, size)); err != nil || !bytes.Equal(block, want.Bytes()) {
		return name, 0, errNotPlain
	}
	u.padding = -size & (blockBytes - 1)
	return name, size, nil
}

// end reads the second block of the end, which may be missing, and what is left, so that the sum of the whole is compared.
func (u *ustarReader) end() error {
	second, err := u.read(blockBytes)
	if err != nil {
		return err
	}
	if len(second)%blockBytes != 0 || !zero(second) {
		return errors.New("it ends with a block that is none")
	}
	if _, err := u.read(maxAfterEnd); err != nil {
		return err
	}
	return io.EOF
}

// read reads so many bytes, fewer only at the end.
func (u *ustarReader) read(n int64) ([]byte, error) { return io.ReadAll(io.LimitReader(u.r, n)) }

func zero(data []byte) bool { return len(bytes.Trim(data, "\x00")) == 0 }
