package signature

import (
	"fmt"
	"net/url"
	"strings"
)

// signedURL is the address that a provider was given, where it is not the one that requests come to: behind a proxy.
type signedURL struct {
	base  string // scheme, host and path
	query string
}

func parseSignedURL(text string) signedURL {
	base, query, _ := strings.Cut(text, "?")
	return signedURL{base: base, query: query}
}

// URL is the address for Request.URL: the configured one, or else base, with the request's query. A query of
// the configured address counts only if the request has none, since providers send it along, and add to it.
func (v *Verifier) URL(base, query string) string {
	if v.signedURL.base != "" {
		base = v.signedURL.base
		if query == "" {
			query = v.signedURL.query
		}
	}
	if query == "" {
		return base
	}
	return base + "?" + query
}

func checkSignedURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return fmt.Errorf("signed URL must be an absolute http or https URL, exactly as the provider was given it")
	case u.Fragment != "":
		return fmt.Errorf("signed URL must not have a fragment: it is never sent")
	}
	return nil
}
