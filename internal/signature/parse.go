package signature

import (
	"net/http"
	"strings"
)

// parsed is what a request's headers say. It lives on the stack of Verify.
type parsed struct {
	id        string
	timestamp string
	macs      [maxSignatures][maxMACBytes]byte
	nMACs     int
	ed25519   [maxSignatures][maxMACBytes]byte
	nEd25519  int
}

// parse reads the headers into p. It looks at no more than maxHeaderBytes and maxSignatures, and
// ends in an error unless p holds a signature of a kind that the verifier has a key for.
func (s *scheme) parse(h http.Header, p *parsed, wantMAC, wantEd25519 bool) error {
	text, err := s.signature.value(h)
	if err != nil {
		return err
	}
	if len(text) > maxHeaderBytes {
		return s.errTooLong
	}
	if s.content.has(idPart) {
		if p.id, err = s.id.value(h); err != nil {
			return err
		}
		// Standard Webhooks: an id with a full stop could shift text between the id, the
		// timestamp and the body without changing what is signed.
		if len(p.id) > maxFieldBytes || strings.IndexByte(p.id, '.') >= 0 {
			return s.errID
		}
	}
	if s.preset.TimestampHeader != "" {
		if p.timestamp, err = s.timestamp.value(h); err != nil {
			return err
		}
	}
	if err := s.parseItems(text, p, wantMAC, wantEd25519); err != nil {
		return err
	}
	if s.preset.TimestampPrefix != "" && p.timestamp == "" {
		return s.errNoTime
	}
	return nil
}

func (s *scheme) parseItems(text string, p *parsed, wantMAC, wantEd25519 bool) error {
	seen := 0
	for more := true; more; {
		item := text
		more = false
		if s.preset.Separator != "" {
			item, text, more = strings.Cut(text, s.preset.Separator)
			item = strings.Trim(item, " ")
		}
		if s.preset.TimestampPrefix != "" {
			if t, ok := strings.CutPrefix(item, s.preset.TimestampPrefix); ok {
				if p.timestamp != "" {
					return s.errTwoTimes
				}
				p.timestamp = t
				continue
			}
		}
		if encoded, ok := strings.CutPrefix(item, s.preset.Prefix); ok && wantMAC {
			if seen++; seen > maxSignatures {
				return s.errTooMany
			}
			if s.preset.Encoding.decode(p.macs[p.nMACs][:s.preset.Algorithm.size()], encoded) {
				p.nMACs++
			}
		} else if encoded, ok := strings.CutPrefix(item, prefixEd25519Item); ok && wantEd25519 {
			if seen++; seen > maxSignatures {
				return s.errTooMany
			}
			if Base64.decode(p.ed25519[p.nEd25519][:], encoded) {
				p.nEd25519++
			}
		}
	}
	switch {
	case seen == 0:
		return s.errNoItem
	case p.nMACs+p.nEd25519 == 0:
		return s.errEncoding
	}
	return nil
}
