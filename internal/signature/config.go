package signature

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Config says how an endpoint's webhooks are signed. Except for Tolerance and SignedURL, the
// fields after Preset belong to PresetGeneric, and setting one beside another preset is an error.
type Config struct {
	// Preset is the name of a preset.
	Preset string
	// Algorithm of the HMAC. Default HMACSHA256.
	Algorithm Algorithm
	// Header carries the signature. Default X-Signature.
	Header string
	// Encoding of the signature. Default Hex.
	Encoding Encoding
	// Prefix stands before the signature in the header, such as "sha256=". At most 32 bytes
	// of printable ASCII. Default none.
	Prefix string
	// Content is the signed text, a template over {timestamp}, {body}, {method} and {url}. Default
	// "{body}", or "{timestamp}.{body}" with a TimestampHeader.
	Content string
	// TimestampHeader carries Unix seconds. Default none, which leaves replays to deduplication.
	TimestampHeader string
	// Tolerance replaces the preset's, where there is a timestamp: 1 s to 24 h. Zero keeps it.
	Tolerance time.Duration
	// SignedURL is the address that the provider was given, where the signature covers it. Default:
	// the one that Verifier.URL is called with.
	SignedURL string
}

// Check reports everything that is wrong with cfg.
func (cfg Config) Check() error {
	p, err := cfg.preset()
	if err != nil {
		return fmt.Errorf("signature configuration: %w", err)
	}
	if _, err := compile(p); err != nil {
		return fmt.Errorf("signature configuration: %w", err)
	}
	return nil
}

// preset merges cfg into its preset. The error names everything that is wrong.
func (cfg Config) preset() (Preset, error) {
	p, ok := Lookup(cfg.Preset)
	if !ok {
		return Preset{}, fmt.Errorf("preset %q is unknown: use one of %s", cfg.Preset, presetNames())
	}
	var errs []error
	if p.Name == PresetGeneric {
		errs = cfg.customise(&p)
	} else {
		errs = cfg.refuseCustom(p.Name)
	}
	if cfg.Tolerance != 0 {
		switch {
		case !p.Timed():
			errs = append(errs, fmt.Errorf("preset %s carries no timestamp here: leave out the tolerance", p.Name))
		case cfg.Tolerance < minTolerance || cfg.Tolerance > maxTolerance:
			errs = append(errs, fmt.Errorf("tolerance %v is outside %v to %v", cfg.Tolerance, minTolerance, maxTolerance))
		default:
			p.Tolerance = cfg.Tolerance
		}
	}
	if cfg.SignedURL != "" {
		if !strings.Contains(p.Content, "{url}") {
			errs = append(errs, fmt.Errorf("preset %s signs no URL here: leave out the signed URL", p.Name))
		} else if err := checkSignedURL(cfg.SignedURL); err != nil {
			errs = append(errs, err)
		}
	}
	return p, errors.Join(errs...)
}

func (cfg Config) customise(p *Preset) (errs []error) {
	switch cfg.Algorithm {
	case AlgorithmNone:
	case HMACSHA1, HMACSHA256, HMACSHA512:
		p.Algorithm = cfg.Algorithm
	default:
		errs = append(errs, fmt.Errorf("preset %s makes HMACs only: choose SHA-256, SHA-512 or SHA-1", p.Name))
	}
	if cfg.Header != "" {
		p.Header = cfg.Header
	}
	p.Encoding = cfg.Encoding
	p.Prefix = cfg.Prefix
	if cfg.TimestampHeader != "" {
		p.TimestampHeader = cfg.TimestampHeader
		p.Tolerance = defaultTolerance
		p.Content = "{timestamp}.{body}"
	}
	if cfg.Content != "" {
		p.Content = cfg.Content
	}
	if strings.Count(p.Content, "{body}") != 1 {
		errs = append(errs, errNoBody)
	}
	if strings.Contains(p.Content, "{form}") || strings.Contains(p.Content, "{"+jsonPlaceholder) {
		errs = append(errs, errors.New("signed content may hold {timestamp}, {body}, {method} and {url} only"))
	}
	for _, name := range []string{p.Header, p.TimestampHeader} {
		if name != "" && !validHeaderName(name) {
			errs = append(errs, fmt.Errorf("%q is not a header name: use letters, digits and hyphens", name))
		}
	}
	if http.CanonicalHeaderKey(p.Header) == http.CanonicalHeaderKey(p.TimestampHeader) {
		errs = append(errs, fmt.Errorf("header %q cannot carry both the signature and the timestamp", p.Header))
	}
	if p.Encoding > Base64 {
		errs = append(errs, fmt.Errorf("encoding %d is unknown: use hex or base64", p.Encoding))
	}
	if len(p.Prefix) > maxPrefixBytes || !printable(p.Prefix) || strings.HasPrefix(p.Prefix, " ") {
		errs = append(errs, fmt.Errorf("the signature prefix must be at most %d bytes of printable ASCII and not begin with a space", maxPrefixBytes))
	}
	return errs
}

func (cfg Config) refuseCustom(preset string) (errs []error) {
	refuse := func(set bool, what string) {
		if set {
			errs = append(errs, fmt.Errorf("preset %s fixes its %s: leave it out, or use preset %s", preset, what, PresetGeneric))
		}
	}
	refuse(cfg.Algorithm != AlgorithmNone, "algorithm")
	refuse(cfg.Header != "", "header")
	refuse(cfg.Encoding != Hex, "encoding")
	refuse(cfg.Prefix != "", "prefix")
	refuse(cfg.Content != "", "signed content")
	refuse(cfg.TimestampHeader != "", "timestamp header")
	return errs
}

func presetNames() string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

// validHeaderName reports whether name is a token, RFC 9110 section 5.6.2.
func validHeaderName(name string) bool {
	for i := range len(name) {
		c := name[i]
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return name != ""
}

// printable reports whether s is ASCII without control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
