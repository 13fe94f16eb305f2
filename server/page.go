package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

const (
	defaultPageSize = 50
	// filterTagBytes of a hash tie a token to the request that it continues. It guards against mix-ups, not against forgery:
	// a token only says where to go on, within what the caller may see anyway.
	filterTagBytes = 8
)

// lastID is above every UUID that is given out: where a list of the newest first begins.
var lastID = uuid.Max

// listRequest is a request for a page.
type listRequest interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

// page is what a listRequest asks for.
type page struct {
	size   int32
	before uuid.UUID // the last id of the page before, or lastID
	within uuid.UUID // where what stands at before goes on, in lists that need two ids to say where they are
	tag    [filterTagBytes]byte
}

// readPage reads a request's page size and token. The token must come from the same request, pages aside.
func readPage(request listRequest) (page, error) {
	p := page{size: request.GetPageSize(), before: lastID, tag: filterTag(request)}
	if p.size == 0 {
		p.size = defaultPageSize
	}
	if request.GetPageToken() == "" {
		return p, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(request.GetPageToken())
	ids := len(raw) - filterTagBytes
	if err != nil || ids != len(p.before) && ids != 2*len(p.before) || subtle.ConstantTimeCompare(raw[ids:], p.tag[:]) != 1 {
		return page{}, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_TOKEN, "page_token",
			"page_token is not one that this list gave out with the same filter: start over without it")
	}
	copy(p.before[:], raw)
	copy(p.within[:], raw[len(p.before):ids])
	return p, nil
}

// token is where the page after the one that ends with last begins.
func (p page) token(last uuid.UUID) string {
	return base64.RawURLEncoding.EncodeToString(append(last[:], p.tag[:]...))
}

// tokenWithin is where to go on below within, at last.
func (p page) tokenWithin(last, within uuid.UUID) string {
	return base64.RawURLEncoding.EncodeToString(slices.Concat(last[:], within[:], p.tag[:]))
}

// number is for lists in the order of the log: the leaf index after which to go on, -1 for the first page.
func (p page) number() int64 {
	if p.before == lastID {
		return -1
	}
	return int64(binary.BigEndian.Uint64(p.before[8:]))
}

func (p page) numberToken(last int64) string {
	var raw uuid.UUID
	binary.BigEndian.PutUint64(raw[8:], uint64(last))
	return p.token(raw)
}

// filterTag is a digest of all that a request for a list or a stream asks for, but for the place to go on at.
func filterTag(request proto.Message) (tag [filterTagBytes]byte) {
	filter := proto.Clone(request).ProtoReflect()
	for _, name := range []protoreflect.Name{"page_size", "page_token", "resume_token"} {
		if field := filter.Descriptor().Fields().ByName(name); field != nil {
			filter.Clear(field)
		}
	}
	digest := sha256.New()
	digest.Write([]byte(filter.Descriptor().FullName()))
	// Deterministic within one build. After an upgrade a token may be refused, and the caller starts over.
	encoded, _ := proto.MarshalOptions{Deterministic: true}.Marshal(filter.Interface())
	digest.Write(encoded)
	copy(tag[:], digest.Sum(nil))
	return tag
}
