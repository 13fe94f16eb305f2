package doctest

import (
	"fmt"
	"strings"
)

// block is a fenced block of commands.
type block struct {
	line int // of its first command
	text string
	// skip says why it is not run; "" when it is.
	skip string
	// exit is the exit code of its one command, "" for 0.
	exit string
}

// commands are the sh blocks of a document. Blocks of other languages are not looked at; one without a language that has a
// command in it is an error, since nothing would ever try it.
func commands(document string) (blocks []block, err error) {
	var open *block
	fence, language := "", ""
	for i, line := range strings.Split(document, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case open == nil && strings.HasPrefix(trimmed, "```"):
			fence = line[:strings.Index(line, "```")]
			var info string
			language, info, _ = strings.Cut(strings.TrimPrefix(trimmed, "```"), " ")
			open = &block{line: i + 2}
			if reason, skipped := strings.CutPrefix(info, "skip:"); skipped {
				open.skip = strings.TrimSpace(reason)
				if open.skip == "" {
					return nil, fmt.Errorf("line %d: the block is skipped, and does not say why", i+1)
				}
			}
			open.exit, _ = strings.CutPrefix(info, "exit=")
			if open.exit == info {
				open.exit = ""
			}
		case open != nil && trimmed == "```":
			if language == "sh" {
				blocks = append(blocks, *open)
			} else if language == "" && hasCommand(open.text) {
				return nil, fmt.Errorf("line %d: the block has commands and is not marked sh: nothing tries them", open.line)
			}
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, fence) + "\n"
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the block is not closed", open.line)
	}
	return blocks, nil
}

func hasCommand(text string) bool {
	for line := range strings.Lines(text) {
		for _, name := range []string{"kapsel ", "bin/kapsel ", "$ ", "curl ", "make ", "go run", "npm ", "openssl "} {
			if strings.HasPrefix(line, name) {
				return true
			}
		}
	}
	return false
}

// script is all that is to be run of a document, as one session: what a block sets, the next ones have. Each says where it is.
func script(blocks []block) string {
	var all strings.Builder
	all.WriteString("set -euo pipefail\n")
	for _, b := range blocks {
		if b.skip != "" {
			continue
		}
		fmt.Fprintf(&all, "echo '# line %d' >&2\n", b.line)
		if b.exit == "" {
			all.WriteString(b.text)
		} else {
			fmt.Fprintf(&all, "if (\n%s); then code=0; else code=$?; fi; test $code = %s\n", b.text, b.exit)
		}
	}
	return all.String()
}
