package main

import (
	"fmt"
	"strings"

	"github.com/kapsel-dev/kapsel/internal/signature"
)

// table is the one of docs/presets.md.
func table() []byte {
	var t strings.Builder
	t.WriteString("\n| from | preset | what is checked | signed time | secret | deduplication key | event type | handshake |\n|---|---|---|---|---|---|---|---|\n")
	for _, p := range signature.Presets() {
		checked, signed, chooser, shake := "nothing", "", "", ""
		if p.Algorithm != signature.AlgorithmNone {
			checked = shortField(signature.Field{Header: p.Header, JSON: strings.Fields(p.SignatureJSON)}) + ": " + strings.TrimSuffix(algorithm(p.Algorithm), ",")
			chooser = "the provider's"
			if p.ReceiverChooses {
				chooser = "yours"
			}
		}
		if p.Timed() {
			signed = duration(p.Tolerance)
		}
		if p.Handshake != signature.HandshakeNone {
			shake = "yes"
		}
		key := shortField(p.DeliveryID)
		if p.RepeatsBody {
			key = strings.TrimPrefix(key+", else *body*", ", else ")
		}
		fmt.Fprintf(&t, "| [%s](presets/%s.md) | `%s` | %s | %s | %s | %s | %s | %s |\n",
			p.Title, p.Name, p.Name, checked, signed, chooser, key, shortField(p.EventType), shake)
	}
	t.WriteString("\n")
	return []byte(t.String())
}

// shortField is where something stands, for a narrow column: a header, or after a dot a path; of a long one the last member.
func shortField(f signature.Field) string {
	if f.Header != "" {
		return code(f.Header)
	}
	paths := make([]string, len(f.JSON))
	for i, path := range f.JSON {
		if len(path) > 30 {
			path = "…" + path[strings.LastIndexByte(path, '.'):]
		} else {
			path = "." + path
		}
		paths[i] = code(path)
	}
	return strings.Join(paths, ", ")
}
