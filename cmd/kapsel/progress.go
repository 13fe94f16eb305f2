package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// progressRefresh is how often a line of progress is written anew at most.
	progressRefresh = 100 * time.Millisecond
	barWidth        = 30
)

// progressLine is one line on a terminal that says how far long work has come. Where nobody watches it writes nothing but notes.
type progressLine struct {
	out     io.Writer
	watched bool
	unit    string
	next    time.Time
	drawn   bool
}

// newProgress makes the line of some work, counted in unit.
func newProgress(out io.Writer, unit string) *progressLine {
	return &progressLine{out: out, watched: isTerminal(out), unit: unit}
}

// stage is show of work that has stages, each with a unit of its own.
func (p *progressLine) stage(unit string, done, total int64) {
	if p.unit != unit {
		p.unit, p.next = unit, time.Time{}
	}
	p.show(done, total)
}

// show says that done of total are done, with a bar unless the total is not known (0).
func (p *progressLine) show(done, total int64) {
	if !p.watched || time.Now().Before(p.next) {
		return
	}
	p.next, p.drawn = time.Now().Add(progressRefresh), true
	fmt.Fprintf(p.out, "\r\x1b[K%s", progressText(done, total, p.unit))
}

func progressText(done, total int64, unit string) string {
	if total <= 0 {
		return fmt.Sprintf("%d %s", done, unit)
	}
	done = min(max(done, 0), total)
	filled := int(float64(done) / float64(total) * barWidth)
	return fmt.Sprintf("[%s%s] %d of %d %s", strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled), done, total, unit)
}

// note writes a line that stays, whoever watches.
func (p *progressLine) note(format string, arguments ...any) {
	p.end()
	fmt.Fprintf(p.out, format+"\n", arguments...)
}

// end takes the line away.
func (p *progressLine) end() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}
