package signature

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"
)

// scheme is a preset made ready for use: header names in canonical form, template and paths
// compiled, and each error that a header can cause made once, so that a flood of forged
// requests allocates nothing.
type scheme struct {
	preset     Preset
	content    template
	signature  header
	timestamp  header
	id         header // read only if the signature covers it
	deliveryID field
	eventType  field

	errTooLong, errTooMany, errNoItem, errEncoding, errTwoTimes, errNoTime, errTime, errID error
}

func compile(p Preset) (*scheme, error) {
	s := &scheme{preset: p, deliveryID: compileField(p.DeliveryID), eventType: compileField(p.EventType)}
	if p.Algorithm == AlgorithmNone {
		return s, nil
	}
	content, err := compileTemplate(p.Content)
	if err != nil {
		return nil, err
	}
	if timed := p.TimestampHeader != "" || p.TimestampPrefix != ""; timed != content.has(timestampPart) {
		return nil, fmt.Errorf("signed content must hold {timestamp} if, and only if, a timestamp header is given")
	}
	if content.has(idPart) && p.DeliveryID.Header == "" {
		return nil, fmt.Errorf("signed content holds {id}, but preset %s has no delivery id header", p.Name)
	}
	s.content = content
	s.signature = compileHeader(p.Header)
	s.timestamp = compileHeader(p.TimestampHeader)
	s.id = compileHeader(p.DeliveryID.Header)

	malformed := func(header, what string) error {
		return fmt.Errorf("%w: header %s %s", ErrMalformedSignature, header, what)
	}
	name := s.signature.name
	s.errTooLong = malformed(name, fmt.Sprintf("is over %d bytes", maxHeaderBytes))
	s.errTooMany = malformed(name, fmt.Sprintf("holds over %d signatures", maxSignatures))
	s.errNoItem = malformed(name, fmt.Sprintf("holds no signature of the form %q", p.Prefix+"..."))
	s.errEncoding = malformed(name, fmt.Sprintf("holds no %s of the right length", p.Encoding))
	s.errTwoTimes = malformed(name, "holds two timestamps")
	s.errNoTime = fmt.Errorf("%w: header %s holds no timestamp", ErrMissingSignature, name)
	s.errTime = malformed(cmp.Or(s.timestamp.name, name), "holds a timestamp that is not Unix seconds")
	s.errID = malformed(s.id.name, fmt.Sprintf("is over %d bytes or contains a full stop", maxFieldBytes))
	return s, nil
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
func (f header) value(h http.Header) (string, error) {
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
	seconds, ok := parseSeconds(text)
	if !ok {
		return s.errTime
	}
	age := now.Sub(time.Unix(seconds, 0))
	switch {
	case age > s.preset.Tolerance:
		return ErrStaleTimestamp
	case -age > s.preset.Tolerance:
		return ErrFutureTimestamp
	}
	return nil
}

// parseSeconds accepts plain digits without leading zeros, so that one instant has one spelling
// and the signed text does not depend on whether a sender signs the header or the number.
func parseSeconds(text string) (seconds int64, ok bool) {
	if text == "" || len(text) > maxTimestampDigits || text[0] == '0' {
		return 0, false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
		seconds = 10*seconds + int64(text[i]-'0')
	}
	return seconds, true
}

// strictBase64 refuses set bits beyond the last byte, so that a signature has one spelling.
var strictBase64 = base64.StdEncoding.Strict()

func (e Encoding) String() string {
	switch e {
	case Hex:
		return "hex"
	case Base64:
		return "base64"
	}
	return fmt.Sprintf("encoding %d", uint8(e))
}

func (e Encoding) encodedLen(n int) int {
	if e == Base64 {
		return base64.StdEncoding.EncodedLen(n)
	}
	return hex.EncodedLen(n)
}

func (e Encoding) appendEncode(dst, raw []byte) []byte {
	if e == Base64 {
		return base64.StdEncoding.AppendEncode(dst, raw)
	}
	return hex.AppendEncode(dst, raw)
}

// decode decodes text into dst, and reports whether it held exactly len(dst) bytes.
func (e Encoding) decode(dst []byte, text string) bool {
	if len(text) != e.encodedLen(len(dst)) {
		return false
	}
	var src [maxEncodedBytes]byte
	n := copy(src[:], text)
	var raw [maxMACBytes + 3]byte // the base64 decoder may write up to two bytes past the end
	var got int
	var err error
	if e == Base64 {
		got, err = strictBase64.Decode(raw[:], src[:n])
	} else {
		got, err = hex.Decode(raw[:], src[:n])
	}
	copy(dst, raw[:])
	return err == nil && got == len(dst)
}
