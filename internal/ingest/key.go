package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/kapsel-dev/kapsel/internal/route"
)

const (
	// A key is hashed whole; this much of it is kept for people.
	maxShownKeyBytes  = 256
	maxEventTypeBytes = 256
	// 128 bits of SHA-256: two keys of one endpoint that meet by chance are not to be expected.
	keyHashBytes = 16
)

// dedupKey finds the key by which a repeat of this webhook is known, "" when it has none. The source of the key is part
// of it, so that a header's value never meets a provider's id.
func dedupKey(w Webhook, bodySHA256 [sha256.Size]byte) string {
	switch dedup := w.Endpoint.Dedup; dedup.Source {
	case route.DedupAuto:
		// A header that nobody signed must not make a new event of what was caught and is sent again.
		provider := providerKey(w, bodySHA256)
		if provider != "" && !w.Trusted && w.Endpoint.Verifier.SignsDeliveryID() {
			return provider
		}
		for _, name := range [...]string{"Idempotency-Key", "X-Idempotency-Key"} {
			if key := first(w.Header, name); key != "" {
				return "idempotency:" + key
			}
		}
		return provider
	case route.DedupHeader:
		if key := first(w.Header, dedup.Name); key != "" {
			return "header:" + key
		}
	case route.DedupJSONPath:
		// An empty value is no key, as with headers: it would make one event of all that leave the field empty.
		if value, _ := dedup.Path.Text(w.Body); value != "" {
			return "json:" + value
		}
	case route.DedupBodyHash:
		return bodyKey(bodySHA256)
	case route.DedupNone:
	}
	return ""
}

// providerKey is by what the provider knows its delivery.
func providerKey(w Webhook, bodySHA256 [sha256.Size]byte) string {
	if id, found := w.Endpoint.Verifier.DeliveryID(w.Header, w.Body); found {
		return "provider:" + id
	}
	if w.Endpoint.Verifier.RepeatsBody() {
		return bodyKey(bodySHA256)
	}
	return ""
}

func bodyKey(bodySHA256 [sha256.Size]byte) string { return "body:" + hex.EncodeToString(bodySHA256[:]) }

func eventType(w Webhook) string {
	switch source := w.Endpoint.EventType; source.Source {
	case route.EventTypeAuto:
		text, _ := w.Endpoint.Verifier.EventType(w.Header, w.Body)
		return text
	case route.EventTypeHeader:
		return first(w.Header, source.Name)
	case route.EventTypeJSONPath:
		text, _ := source.Path.Text(w.Body)
		return text
	case route.EventTypeNone:
	}
	return ""
}

// first is the first value of a header whose name is canonical already.
func first(header http.Header, name string) string {
	if values := header[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// jsonDefect says what keeps the body from being JSON (RFC 8259), "" when it is.
func jsonDefect(body []byte) string {
	if json.Valid(body) {
		return ""
	}
	var value json.RawMessage
	err := json.Unmarshal(body, &value)
	var syntax *json.SyntaxError
	switch {
	case len(body) == 0:
		return "payload is not JSON: it is empty"
	case errors.As(err, &syntax):
		return fmt.Sprintf("payload is not JSON: %s at byte %d", syntax.Error(), syntax.Offset)
	default:
		return fmt.Sprintf("payload is not JSON: %v", err)
	}
}
