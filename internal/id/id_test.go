package id_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/kapsel-dev/kapsel/internal/id"
)

func TestTextAndParseAreInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u uuid.UUID
		copy(u[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes"))
		got, err := id.Event.Parse(id.Event.Text(u))
		if err != nil || got != u {
			t.Fatalf("got %v, %v; want %v", got, err, u)
		}
	})
}

func TestSpellsTheSpecificationsExample(t *testing.T) {
	// From the TypeID specification's valid examples.
	u := uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")
	if got, want := id.Kind("prefix").Text(u), "prefix_01h455vb4pex5vsknk084sn02q"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestRefusesOtherTexts(t *testing.T) {
	for _, text := range []string{
		"", "evt", "evt_", "att_01h455vb4pex5vsknk084sn02q", "evt_81h455vb4pex5vsknk084sn02q", "evt_01h455vb4pex5vsknk084sn02",
		"evt_01h455vb4pex5vsknk084sn02qq", "evt_01h455vb4pex5vsknk084sn0Lq", "evt_01h455vb4pex5vsknk084sn0uq", "EVT_01h455vb4pex5vsknk084sn02q",
		"evt_01h455vb4pex5vsknk084sn0\x00q", "evt_01h455vb4pex5vsknk084sné",
	} {
		if got, err := id.Event.Parse(text); err == nil {
			t.Errorf("%q was taken as %v", text, got)
		}
	}
}

func TestTimeIsWhenTheIDWasMade(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	at := id.Time(id.New())
	if at.Before(before) || at.After(time.Now().Add(time.Second)) {
		t.Fatalf("id says %v, made at %v", at, before)
	}
}
