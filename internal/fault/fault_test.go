package fault

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEachPointIsSomewhereOnTheWay(t *testing.T) {
	uses := make(map[string]int)
	call := regexp.MustCompile(`fault\.(?:Point|Pass)\(fault\.(\w+)\)`)
	err := filepath.WalkDir("../..", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, match := range call.FindAllSubmatch(text, -1) {
			uses[string(match[1])]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("points.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`(?m)^\t(\w+)\s+Name = "([^"]+)"`).FindAllStringSubmatch(string(text), -1)
	if len(declared) == 0 || len(declared) != len(Names()) {
		t.Errorf("%d points are declared, and Names has %d", len(declared), len(Names()))
	}
	for _, point := range declared {
		if !slices.Contains(Names(), Name(point[2])) {
			t.Errorf("Names lacks %s", point[2])
		}
		if uses[point[1]] != 1 {
			t.Errorf("point %s is passed in %d places: want one", point[2], uses[point[1]])
		}
	}
}

func TestPointsThatAreOffDoNothing(t *testing.T) {
	Enable(nil)
	for _, name := range Names() {
		if err := Point(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheSameSeedGivesTheSameFailures(t *testing.T) {
	defer Enable(nil)
	draws := func(text string) string {
		schedule, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		Enable(schedule)
		var outcome strings.Builder
		for range 200 {
			if err := Point(RecorderBeforeCommit); errors.Is(err, ErrInjected) {
				outcome.WriteByte('x')
			} else {
				outcome.WriteByte('.')
			}
		}
		return outcome.String()
	}
	first := draws("seed=7;recorder.before_commit=error:0.3")
	if again := draws("recorder.before_commit=error:0.3; seed=7"); again != first {
		t.Errorf("the same seed gave\n%s and then\n%s", first, again)
	}
	if other := draws("seed=8;recorder.before_commit=error:0.3"); other == first {
		t.Errorf("two seeds gave the same: %s", other)
	}
	if n := strings.Count(first, "x"); n < 30 || n > 90 {
		t.Errorf("%d of 200 failed: want about 60", n)
	}
}

func TestActions(t *testing.T) {
	defer Enable(nil)
	schedule, err := Parse("ingest.hand_over=panic:1;delivery.before_send=delay:1:30ms")
	if err != nil {
		t.Fatal(err)
	}
	Enable(schedule)
	began := time.Now()
	if Pass(DeliveryBeforeSend); time.Since(began) < 30*time.Millisecond {
		t.Errorf("a delay of 30 ms took %v", time.Since(began))
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Pass(IngestHandOver)
}

func TestMalformedSchedulesAreRefused(t *testing.T) {
	for _, text := range []string{
		"nowhere=error:1", "ingest.hand_over", "ingest.hand_over=error", "ingest.hand_over=error:2", "ingest.hand_over=error:NaN",
		"ingest.hand_over=delay:1", "ingest.hand_over=delay:1:1h", "ingest.hand_over=melt:1", "seed=x",
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func BenchmarkPointThatIsOff(b *testing.B) {
	Enable(nil)
	for b.Loop() {
		Pass(IngestHandOver)
	}
}
