package signature

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kapsel-dev/kapsel/internal/jsonpath"
)

// scheme is a preset made ready for use: header names in canonical form, template and paths
// compiled, and each error that a header can cause made once, so that a flood of forged
// requests allocates nothing.
type scheme struct {
	preset        Preset
	content       template
	signature     header
	timestamp     header
	id            header // read only if the signature covers it
	signaturePath jsonpath.Path
	onlyItemPath  jsonpath.Path
	timestampPath jsonpath.Path
	timed         bool
	deliveryID    field
	eventType     field

	errTooLong, errTooMany, errNoItem, errEncoding, errTwoTimes, errNoTime, errTime, errID error
	errNoSignature, errMoreItems, errAmbiguous, errForm, errURL                            error
}

func compile(p Preset) (*scheme, error) {
	s := &scheme{preset: p, deliveryID: compileField(p.DeliveryID), eventType: compileField(p.EventType)}
	if p.Algorithm == AlgorithmNone {
		return s, nil
	}
	if p.Algorithm != Token {
		content, err := compileTemplate(p.Content)
		if err != nil {
			return nil, err
		}
		s.content = content
	}
	if timed := p.TimestampHeader != "" || p.TimestampPrefix != ""; timed != s.content.has(timestampPart) {
		return nil, errors.New("signed content must hold {timestamp} if, and only if, a timestamp header is given")
	}
	if s.content.has(idPart) && p.DeliveryID.Header == "" {
		return nil, fmt.Errorf("signed content holds {id}, but preset %s has no delivery id header", p.Name)
	}
	s.timed = p.Timed()
	s.signature = compileHeader(p.Header)
	s.timestamp = compileHeader(p.TimestampHeader)
	s.id = compileHeader(p.DeliveryID.Header)
	s.signaturePath, s.timestampPath = jsonpath.Parse(p.SignatureJSON), jsonpath.Parse(p.TimestampJSON)
	s.onlyItemPath = jsonpath.Parse(p.OnlyItemJSON)
	s.makeErrors()
	return s, nil
}

func (s *scheme) makeErrors() {
	p := s.preset
	malformed := func(where, what string) error { return fmt.Errorf("%w: %s %s", ErrMalformedSignature, where, what) }
	where := "header " + s.signature.name
	if p.SignatureJSON != "" {
		where = "member " + p.SignatureJSON
	}
	s.errNoSignature = fmt.Errorf("%w: no %s", ErrMissingSignature, where)
	s.errTooLong = malformed(where, fmt.Sprintf("is over %d bytes", maxHeaderBytes))
	s.errTooMany = malformed(where, fmt.Sprintf("holds over %d signatures", maxSignatures))
	s.errNoItem = malformed(where, fmt.Sprintf("holds no signature of the form %q", p.Prefix+"..."))
	s.errEncoding = malformed(where, fmt.Sprintf("holds no %s of the right length", p.Encoding))
	s.errTwoTimes = malformed(where, "holds two timestamps")
	s.errNoTime = fmt.Errorf("%w: %s holds no timestamp", ErrMissingSignature, cmp.Or(p.TimestampJSON, where))
	unit := "seconds"
	if p.TimestampUnit == time.Millisecond {
		unit = "milliseconds"
	}
	s.errTime = malformed(cmp.Or(p.TimestampJSON, s.timestamp.name, where), "holds a timestamp that is not Unix "+unit)
	s.errID = malformed("header "+s.id.name, fmt.Sprintf("is over %d bytes or contains a full stop", maxFieldBytes))
	s.errMoreItems = malformed("the body", "holds "+p.OnlyItemJSON+", which its signature does not cover")
	s.errAmbiguous = malformed("the body", "holds a member that its signature covers twice, or not as text")
	s.errForm = malformed("the body", fmt.Sprintf("is no form of at most %d parameters, and the URL has no digest of it", maxFormParameters))
	s.errURL = malformed("the URL", fmt.Sprintf("is over %d bytes", maxURLBytes))
}

// header is a header that must stand in the request exactly once.
type header struct {
	name              string // canonical
	missing, repeated error
}

func compileHeader(name string) header {
	name = http.CanonicalHeaderKey(name)
	return header{
		name:     name,
		missing:  fmt.Errorf("%w: no header %s", ErrMissingSignature, name),
		repeated: fmt.Errorf("%w: header %s is there more than once", ErrMalformedSignature, name),
	}
}

// value refuses a repeated header, because two readers of it could take different ones.
func (f *header) value(h http.Header) (string, error) {
	values := h[f.name]
	switch {
	case len(values) > 1:
		return "", f.repeated
	case len(values) == 0 || values[0] == "":
		return "", f.missing
	}
	return values[0], nil
}

// checkTime parses a timestamp and holds it against the tolerance, both ways, bounds included.
func (s *scheme) checkTime(text string, now time.Time) error {
	digits, milli := maxSecondsDigits, s.preset.TimestampUnit == time.Millisecond
	if milli {
		digits = maxMillisecondsDigits
	}
	n, ok := parseDigits(text, digits)
	if !ok {
		return s.errTime
	}
	signed := time.Unix(n, 0)
	if milli {
		signed = time.UnixMilli(n)
	}
	age := now.Sub(signed)
	switch {
	case age > s.preset.Tolerance:
		return ErrStaleTimestamp
	case -age > s.preset.Tolerance:
		return ErrFutureTimestamp
	}
	return nil
}

// parseDigits accepts plain digits without leading zeros, so that one instant has one spelling
// and the signed text does not depend on whether a sender signs the header or the number.
func parseDigits(text string, most int) (n int64, ok bool) {
	if text == "" || len(text) > most || text[0] == '0' {
		return 0, false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(text[i]-'0')
	}
	return n, true
}
