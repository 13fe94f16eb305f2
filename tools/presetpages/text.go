package main

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// text is what people wrote of a preset: text/NAME.md. It begins with lines "key: value", then come sections of these names.
type text struct {
	// Event is an event type, where the provider sends it in a header.
	Event string
	// ID is a delivery id, where the provider sends one in a header.
	ID string
	// SecretLater says that the provider shows its secret only when it has the address.
	SecretLater bool

	Setup, Handshake, Test, Notes, Sources string
	// Payload is what the page sends, and File its name.
	Payload, File string
}

func readText(name string) (t text, err error) {
	raw, err := written.ReadFile("text/" + name + ".md")
	if err != nil {
		return text{}, fmt.Errorf("write its text: %w", err)
	}
	head, body, _ := strings.Cut(string(raw), "\n\n")
	for line := range strings.Lines(head) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "event":
			t.Event = value
		case "id":
			t.ID = value
		case "secret":
			t.SecretLater = value == "later"
		default:
			return text{}, fmt.Errorf("text/%s.md begins with %q: use event, id and secret, then an empty line", name, line)
		}
	}
	sections := map[string]*string{"Setup": &t.Setup, "Handshake": &t.Handshake, "Test": &t.Test, "Notes": &t.Notes, "Sources": &t.Sources}
	for _, section := range strings.Split("\n"+body, "\n## ")[1:] {
		title, content, _ := strings.Cut(section, "\n")
		into, known := sections[title]
		if !known {
			return text{}, fmt.Errorf("text/%s.md has a section %q that is not known", name, title)
		}
		*into = strings.TrimSpace(content)
	}
	for _, file := range []string{"webhook.json", "webhook.txt"} {
		_, extension, _ := strings.Cut(file, ".")
		payload, err := fs.ReadFile(written, "payload/"+name+"."+extension)
		if err == nil {
			t.Payload, t.File = strings.TrimSpace(string(payload)), file
		}
	}
	if t.Payload == "" || t.Setup == "" {
		return text{}, fmt.Errorf("text/%s.md needs a section Setup, and payload/%s.json (or .txt) something to send", name, name)
	}
	return t, nil
}

// texts are the names of the presets that have a text.
func texts() (names []string, err error) {
	files, err := fs.Glob(written, "*/*")
	for _, file := range files {
		_, name, _ := strings.Cut(file, "/")
		name, _, _ = strings.Cut(name, ".")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}
