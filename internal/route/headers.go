package route

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/kapsel-dev/kapsel/internal/secret"
)

// StaticHeader is a header that a destination adds to each request. It is an element of the column headers, there without its
// value, and of what is sealed as the destination's credential of kind HeadersKind, there with it.
type StaticHeader struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	// Sealed says that the value is in the credential. Where it is not set, an earlier version has stored the value in the column.
	Sealed bool `json:"sealed,omitempty"`
}

// OpenHeaders is what the column headers holds, with the values from the opened credential (nil: there is none, or it cannot be read).
func OpenHeaders(column []byte, opened *secret.Secret) ([]StaticHeader, error) {
	headers, err := ReadHeaders(column)
	if err != nil {
		return nil, err
	}
	for _, h := range headers {
		if !h.Sealed {
			continue
		}
		if opened == nil {
			return nil, errUnreadableCredential
		}
		// All of them: the two are read one after the other, and the later one is of the later change.
		return unsealHeaders(*opened)
	}
	return headers, nil
}

// ReadHeaders decodes the column headers.
func ReadHeaders(column []byte) (headers []StaticHeader, err error) {
	if err := json.Unmarshal(column, &headers); err != nil {
		return nil, fmt.Errorf("stored headers: %w", err)
	}
	return headers, nil
}

// unsealHeaders says nothing of what it could not decode.
func unsealHeaders(opened secret.Secret) (headers []StaticHeader, err error) {
	if json.Unmarshal(opened.Reveal(), &headers) != nil {
		return nil, errUnreadableCredential
	}
	return headers, nil
}

func compileHeaders(column []byte, opened *secret.Secret) (http.Header, error) {
	static, err := OpenHeaders(column, opened)
	if err != nil {
		return nil, err
	}
	compiled := make(http.Header, len(static))
	for _, h := range static {
		compiled.Add(h.Name, h.Value)
	}
	return compiled, nil
}
