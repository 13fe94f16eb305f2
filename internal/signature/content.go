package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
)

// readContent fills in what a signature covers beside headers: the method, the URL, the body.
func (s *scheme) readContent(r *Request, p *parsed) error {
	p.body = r.Body
	p.method = r.Method
	for i := range s.content {
		if s.content[i].kind == jsonPart {
			if _, _, err := s.content[i].path.OnlyText(r.Body); err != nil {
				return s.errAmbiguous
			}
		}
	}
	if !s.content.has(urlPart) {
		return nil
	}
	if len(r.URL) > maxURLBytes {
		return s.errURL
	}
	p.url = decodeChosen(r.URL, s.preset.DecodedURL)
	if !s.content.has(formPart) {
		return nil
	}
	if digest := queryValue(r.URL, s.preset.BodyDigestQuery); digest != "" {
		sum := sha256.Sum256(r.Body)
		if !strings.EqualFold(digest, hex.EncodeToString(sum[:])) { // no secret: the URL shows it
			return ErrBadSignature
		}
		return nil
	}
	var ok bool
	if p.form, ok = sortedForm(r.Body); !ok {
		return s.errForm
	}
	return nil
}

// sortedForm joins the names and values of a form in the order of the names. Of a name's values, each
// counts once, in order. That is what Twilio signs.
func sortedForm(body []byte) ([]byte, bool) {
	if len(body) == 0 {
		return nil, true
	}
	text := string(body)
	if strings.Count(text, "&") >= maxFormParameters {
		return nil, false
	}
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, false
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	signed := make([]byte, 0, len(body))
	for _, name := range names {
		of := values[name]
		slices.Sort(of)
		for _, value := range slices.Compact(of) {
			signed = append(append(signed, name...), value...)
		}
	}
	return signed, true
}

// queryValue is the first value of a query parameter whose name and value need no escapes.
func queryValue(address, name string) string {
	_, query, _ := strings.Cut(address, "?")
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if value, ok := strings.CutPrefix(pair, name); ok && strings.HasPrefix(value, "=") {
			return value[1:]
		}
	}
	return ""
}

// decodeChosen undoes the percent-encoding of the characters in chosen.
func decodeChosen(address, chosen string) string {
	if chosen == "" || strings.IndexByte(address, '%') < 0 {
		return address
	}
	decoded := make([]byte, 0, len(address))
	for i := 0; i < len(address); i++ {
		if address[i] == '%' && i+2 < len(address) {
			var c [1]byte
			if _, err := hex.Decode(c[:], []byte(address[i+1:i+3])); err == nil && strings.IndexByte(chosen, c[0]) >= 0 {
				decoded = append(decoded, c[0])
				i += 2
				continue
			}
		}
		decoded = append(decoded, address[i])
	}
	return string(decoded)
}
