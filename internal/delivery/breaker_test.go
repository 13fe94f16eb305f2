package delivery

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	testRules = newBreakerRules(DefaultBreakerPause)
	testStart = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
)

// play notes results, a letter each: + and - are good and bad ones, 0 none; 100 ms apart. It returns after how many the
// breaker changed, 0 when it did not.
func play(b *breaker, results string) int {
	for i, r := range results {
		now := testStart.Add(time.Duration(i) * 100 * time.Millisecond)
		if b.note(testRules, map[rune]signal{'+': goodSignal, '-': badSignal, '0': noSignal}[r], now, now, 0) {
			return i + 1
		}
	}
	return 0
}

func TestBreakerOpens(t *testing.T) {
	for name, test := range map[string]struct {
		results string
		opensAt int
	}{
		"after five failures in a row":             {"-----", 5},
		"not after four":                           {"----+----+", 0},
		"five count after a few good ones":         {"+++-----", 8},
		"slow down is no failure":                  {"----0000000-", 12},
		"half of ten results":                      {"+-+-+-+-+-", 10},
		"not half of fewer":                        {"+-+-+-+-", 0},
		"not five in a row where most are good":    {"++++++++++++++++-----+", 0},
		"ten in a row even where most were good":   {"++++++++++++----------", 22},
		"three of ten at random do not":            {"+-++-++-+++-+-+-++++--++-+++", 0},
		"a window that is half failures, unevenly": {"++++++----+-+---", 16},
	} {
		t.Run(name, func(t *testing.T) {
			var b breaker
			b.reset()
			if got := play(&b, test.results); got != test.opensAt {
				t.Errorf("opened after %d results, want %d", got, test.opensAt)
			}
			if opened := b.state == breakerOpen; opened != (test.opensAt > 0) {
				t.Errorf("state %d", b.state)
			}
		})
	}
}

// Of what is sent together, that which times out ends last and together.
func TestFailuresThatBeganBeforeASuccessAreNotInARow(t *testing.T) {
	var b breaker
	b.reset()
	for i := range 100 {
		if started := testStart.Add(time.Duration(i) * time.Millisecond); b.note(testRules, goodSignal, started, started.Add(10*time.Millisecond), 0) {
			t.Fatal("opened by a success")
		}
	}
	for i := range 30 {
		if started := testStart.Add(time.Duration(i) * time.Millisecond); b.note(testRules, badSignal, started, started.Add(2*time.Second), 0) {
			t.Fatalf("opened by timeout %d of attempts before the last success", i+1)
		}
	}
	for i := range 2 * testRules.maxFailures {
		started := testStart.Add(time.Second + time.Duration(i)*time.Millisecond)
		if opened := b.note(testRules, badSignal, started, started.Add(2*time.Second), 0); opened != (i == 2*testRules.maxFailures-1) {
			t.Fatalf("opened %v after %d failures of attempts since", opened, i+1)
		}
	}
}

func TestOldResultsLeaveTheWindow(t *testing.T) {
	var b breaker
	b.reset()
	now := testStart
	for range 4 {
		b.note(testRules, badSignal, now, now, 0)
	}
	b.note(testRules, goodSignal, now, now, 0)
	now = now.Add(testRules.window)
	for i, s := range []signal{badSignal, goodSignal, badSignal, goodSignal, badSignal, goodSignal, badSignal} {
		if b.note(testRules, s, now, now, 0) {
			t.Fatalf("opened at result %d of a new window, for those of the last", i)
		}
	}
}

func TestPausesDoubleUpToTenMinutes(t *testing.T) {
	var b breaker
	b.reset()
	play(&b, "-----")
	now := b.probeAt
	var pauses []time.Duration
	for range 8 {
		b.beginProbe(now, now.Add(time.Minute))
		if !b.note(testRules, badSignal, now, now, 0) || b.state != breakerOpen {
			t.Fatalf("state %d after a failed probe", b.state)
		}
		pauses = append(pauses, b.probeAt.Sub(now))
		now = b.probeAt
	}
	for i, want := range []time.Duration{60 * time.Second, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
		if pauses[i] != want {
			t.Errorf("pause %d is %v, want %v", i+2, pauses[i], want)
		}
	}
}

func TestThreeProbesCloseIt(t *testing.T) {
	var b breaker
	b.reset()
	play(&b, "-----")
	for i := 1; i <= 3; i++ {
		now := b.probeAt
		b.beginProbe(now, now.Add(time.Minute))
		straggler := now.Add(-time.Second)
		if b.note(testRules, badSignal, straggler, now, 0) || b.note(testRules, goodSignal, straggler, now, 0) {
			t.Fatal("an attempt that began before the probe counted")
		}
		if !b.note(testRules, goodSignal, now, now.Add(time.Second), 0) {
			t.Fatal("the probe did not count")
		}
		if closed := b.state == breakerClosed; closed != (i == 3) {
			t.Fatalf("state %d after %d good probes", b.state, i)
		}
	}
}

func TestGoodProbeMakesTheNextPauseTheFirstAgain(t *testing.T) {
	var b breaker
	b.reset()
	play(&b, "-----")
	now := b.probeAt
	for _, results := range []string{"-", "-", "-", "+", "-"} {
		b.beginProbe(now, now.Add(time.Minute))
		b.note(testRules, map[string]signal{"+": goodSignal, "-": badSignal}[results], now, now, 0)
		if b.probeAt.After(now) {
			now = b.probeAt
		}
	}
	if b.state != breakerOpen || b.pauses != 1 {
		t.Errorf("state %d, pause number %d: want the first", b.state, b.pauses)
	}
}

// A destination that fails three times in ten at random, and was away, is not held back again and again.
func TestClosedBreakerStaysClosedWhereMostIsGood(t *testing.T) {
	const breakers, results = 2000, 1000
	random := rand.New(rand.NewPCG(1, 2))
	opened := 0
	for range breakers {
		b := testRules.closed(testStart)
		for i := range results {
			s, now := goodSignal, testStart.Add(time.Duration(i)*20*time.Millisecond)
			if random.Float64() < 0.3 {
				s = badSignal
			}
			if b.note(testRules, s, now, now, 0) {
				opened++
				break
			}
		}
	}
	if share := float64(opened) / breakers; share > 0.08 {
		t.Errorf("%.1f %% of the breakers opened again within %d results", 100*share, results)
	}
}

func TestSlowDownLeavesThePauseAsItIs(t *testing.T) {
	var b breaker
	b.reset()
	play(&b, "-----")
	now := b.probeAt
	b.beginProbe(now, now.Add(time.Minute))
	if !b.note(testRules, noSignal, now, now, 0) || b.state != breakerOpen || b.probeAt.Sub(now) != testRules.pause {
		t.Errorf("state %d, pause %v", b.state, b.probeAt.Sub(now))
	}
}

// Whatever happens: the state is one of three, an open breaker has a pause within its bounds, nothing but this node's own
// probe moves one that is not closed, and three good probes close any.
func TestBreakerKeepsItsLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b breaker
		b.reset()
		now := testStart
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(40*time.Second)).Draw(t, "wait")))
			if b.state != breakerClosed && !now.Before(b.probeAt) && rapid.Bool().Draw(t, "probe") {
				b.beginProbe(now, now.Add(time.Minute))
			}
			before := b
			s := signal(rapid.IntRange(0, 2).Draw(t, "signal"))
			started := now.Add(-time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "took")))
			changed := b.note(testRules, s, started, now, rapid.Float64Range(0, 0.999).Draw(t, "rnd"))
			switch {
			case !changed && b.state != before.state:
				t.Fatalf("from %d to %d without a word", before.state, b.state)
			case changed && before.state != breakerClosed && (before.probing.IsZero() || started.Before(before.probing)):
				t.Fatal("moved by something else than the probe")
			case changed && b.state == breakerOpen:
				if pause := b.probeAt.Sub(now); pause < testRules.pause || pause > testRules.maxPause*11/10 || b.pauses < 1 {
					t.Fatalf("pause %v, number %d", pause, b.pauses)
				}
			case changed && before.state == breakerClosed && s != badSignal:
				t.Fatal("opened by something else than a failure")
			case b.state == breakerClosed && b.failures >= 2*testRules.maxFailures:
				t.Fatalf("closed after %d failures in a row", b.failures)
			}
		}
		for i := 0; b.state != breakerClosed; i++ {
			if i == testRules.successes {
				t.Fatal("open after three good probes")
			}
			now = now.Add(time.Hour)
			b.beginProbe(now, now)
			b.note(testRules, goodSignal, now, now, 0)
		}
	})
}
