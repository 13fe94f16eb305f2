package ingest

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestLargePayloadsAreDecodedWhileOthersLeaveRoom(t *testing.T) {
	r := newRig(t, 2*time.Second)
	large, small := `"`+strings.Repeat("a", freeToLookInto)+`"`, `"a"`
	for name, setting := range map[string]string{
		"schema":     `update endpoints set payload_format = 'json', json_schema = '{"type":"string"}'`,
		"expression": `update destinations set filter = '{"expression":"payload == 1"}'`,
	} {
		t.Run(name, func(t *testing.T) {
			r.accept(r.webhook("free "+name, large))
			if !r.looking.TryAcquire(maxLookedInto) {
				t.Fatal("something is looked into")
			}
			r.accept(r.webhook("before "+name, large)) // nothing decodes it
			r.exec(setting)
			r.refresh()
			if _, err := r.Accept(t.Context(), r.webhook("waits "+name, large)); !errors.Is(err, ErrOverloaded) {
				t.Errorf("a large payload, while there is no room: %v", err)
			}
			r.accept(r.webhook("small "+name, small))
			r.looking.Release(maxLookedInto)
			r.accept(r.webhook("waits "+name, large))
			if !r.looking.TryAcquire(maxLookedInto) {
				t.Fatal("room was not given back")
			}
			r.looking.Release(maxLookedInto)
			r.exec(`update endpoints set payload_format = 'any', json_schema = ''`)
			r.exec(`update destinations set filter = '{}'`)
			r.refresh()
		})
	}
}
