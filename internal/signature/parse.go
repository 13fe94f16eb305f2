package signature

import (
	"strings"
)

// parsed is what a request says. It lives on the stack of Verify.
type parsed struct {
	message
	items [maxSignatures]item
	n     int
	token string
}

// item is a signature.
type item struct {
	algorithm Algorithm
	size      uint8
	raw       [maxSignatureBytes]byte
}

func (i *item) bytes() []byte { return i.raw[:i.size] }

// parse reads the request into p. It looks at no more than maxHeaderBytes and maxSignatures, and
// ends in an error unless p holds a signature of a kind that the verifier has a key for: want is
// the preset's own, wantEd25519 that of Standard Webhooks beside it.
func (s *scheme) parse(r *Request, p *parsed, want, wantEd25519 bool) error {
	text, err := s.signatureText(r)
	if err != nil {
		return err
	}
	if len(text) > maxHeaderBytes {
		return s.errTooLong
	}
	if s.content.has(idPart) {
		if p.id, err = s.id.value(r.Header); err != nil {
			return err
		}
		// Standard Webhooks: an id with a full stop could shift text between the id, the
		// timestamp and the body without changing what is signed.
		if len(p.id) > maxFieldBytes || strings.IndexByte(p.id, '.') >= 0 {
			return s.errID
		}
	}
	switch {
	case s.preset.TimestampHeader != "":
		if p.timestamp, err = s.timestamp.value(r.Header); err != nil {
			return err
		}
	case s.timestampPath != nil:
		if p.timestamp, _, err = s.timestampPath.OnlyText(r.Body); err != nil {
			return s.errAmbiguous
		}
	}
	if s.preset.Algorithm == Token {
		var ok bool
		if p.token, ok = strings.CutPrefix(text, s.preset.Prefix); !ok || p.token == "" {
			return s.errNoItem
		}
	} else if err := s.parseItems(text, p, want, wantEd25519); err != nil {
		return err
	}
	if s.timed && p.timestamp == "" {
		return s.errNoTime
	}
	return s.readContent(r, p)
}

func (s *scheme) signatureText(r *Request) (string, error) {
	if s.signaturePath == nil {
		return s.signature.value(r.Header)
	}
	text, _, err := s.signaturePath.OnlyText(r.Body)
	switch {
	case err != nil:
		return "", s.errAmbiguous
	case text == "":
		return "", s.errNoSignature
	}
	if s.onlyItemPath != nil {
		if _, _, found := s.onlyItemPath.Span(r.Body); found {
			return "", s.errMoreItems
		}
	}
	return text, nil
}

func (s *scheme) parseItems(text string, p *parsed, want, wantEd25519 bool) error {
	seen := 0
	for more := true; more; {
		one := text
		more = false
		if s.preset.Separator != "" {
			one, text, more = strings.Cut(text, s.preset.Separator)
			one = strings.Trim(one, " ")
		}
		if s.preset.TimestampPrefix != "" {
			if t, ok := strings.CutPrefix(one, s.preset.TimestampPrefix); ok {
				if p.timestamp != "" {
					return s.errTwoTimes
				}
				p.timestamp = t
				continue
			}
		}
		algorithm, encoding := s.preset.Algorithm, s.preset.Encoding
		encoded, ok := strings.CutPrefix(one, s.preset.Prefix)
		if !ok || !want {
			if encoded, ok = strings.CutPrefix(one, prefixEd25519Item); !ok || !wantEd25519 {
				continue
			}
			algorithm, encoding = Ed25519, Base64
		}
		if seen++; seen > maxSignatures {
			return s.errTooMany
		}
		if p.items[p.n].decode(algorithm, encoding, encoded) {
			p.n++
		}
	}
	switch {
	case seen == 0:
		return s.errNoItem
	case p.n == 0:
		return s.errEncoding
	}
	return nil
}

func (i *item) decode(algorithm Algorithm, encoding Encoding, text string) bool {
	i.algorithm = algorithm
	if size := algorithm.size(); size > 0 {
		i.size = uint8(size)
		return encoding.decode(i.bytes(), text)
	}
	i.size = uint8(encoding.decodeSome(i.raw[:], text))
	return i.size > 0
}
