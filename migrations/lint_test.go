package migrations_test

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/migrations"
)

// frozen is the first schema, which ran on empty databases only.
const frozen = "00001_schema.sql"

// waiver on the line before a statement says why it may do what the rules forbid.
const waiver = "-- safe under load:"

// hot are the tables that nodes write to all the time: a lock that waits there, waits with all of intake behind it.
var hot = `(?:events|dedup_keys|delivery_queue|attempts|logs|tiles|nodes)`

// rules are statements that break the version that still runs beside a migration, or stop it. Docs/operations.md, Upgrades.
var rules = []struct {
	name    string
	pattern *regexp.Regexp
}{
	{"drops a column: an older node may read it. Drop it a release later", regexp.MustCompile(`(?i)\bdrop\s+column\b`)},
	{"drops a table: an older node may use it. Drop it a release later", regexp.MustCompile(`(?i)\bdrop\s+table\b`)},
	{"renames: an older node knows the old name", regexp.MustCompile(`(?i)\brename\s+(?:column\b|to\b|constraint\b)`)},
	{"changes a column's type, which rewrites the table under a lock", regexp.MustCompile(`(?i)\balter\s+(?:column\s+)?\w+\s+(?:set\s+data\s+)?type\b`)},
	{"forbids null in a column that an older node leaves out", regexp.MustCompile(`(?i)\balter\s+(?:column\s+)?\w+\s+set\s+not\s+null\b`)},
	{"adds a column without a default that may not be null", regexp.MustCompile(`(?is)\badd\s+column\s+(?:\w+)\s+[^,;]*\bnot\s+null\b[^,;]*`)},
	{"builds an index on a hot table under a lock: create it concurrently, outside of a transaction", regexp.MustCompile(`(?i)\bcreate\s+(?:unique\s+)?index\s+(?:if\s+not\s+exists\s+)?\w+\s+on\s+(?:only\s+)?` + hot + `\b`)},
	{"validates a constraint on a hot table under a lock: add it not valid, and validate it apart", regexp.MustCompile(`(?is)\balter\s+table\s+` + hot + `\b[^;]*\badd\s+constraint\b`)},
	{"rewrites a table under a lock", regexp.MustCompile(`(?im)^\s*(?:vacuum\s+full|cluster)\b`)},
}

// bodies of functions and blocks run later, or in a loop that is their own to think about.
var bodies = regexp.MustCompile(`(?s)\$\w*\$.*?\$\w*\$`)

var withDefault = regexp.MustCompile(`(?i)\bdefault\b`)

// broken returns what a migration's way up does that needs a waiver and has none.
func broken(text string) (found []string) {
	up, _, _ := strings.Cut(text, "-- +goose Down")
	up = bodies.ReplaceAllString(up, "")
	for _, rule := range rules {
		for _, at := range rule.pattern.FindAllStringIndex(up, -1) {
			if strings.Contains(rule.name, "without a default") && withDefault.MatchString(up[at[0]:at[1]]) {
				continue
			}
			line := up[strings.LastIndex(up[:at[0]], "\n")+1:]
			line, _, _ = strings.Cut(line, "\n")
			before := strings.TrimRight(up[:strings.LastIndex(up[:at[0]], "\n")+1], "\n")
			last := strings.TrimSpace(before[strings.LastIndex(before, "\n")+1:])
			if strings.HasPrefix(last, waiver) || strings.HasPrefix(strings.TrimSpace(line), "--") {
				continue
			}
			found = append(found, rule.name+": "+strings.TrimSpace(line))
		}
	}
	return found
}

func TestMigrationsExpandBeforeTheyContract(t *testing.T) {
	files, err := fs.Glob(migrations.Files, "*.sql")
	if err != nil || len(files) < 2 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		if file == frozen {
			continue
		}
		text, err := fs.ReadFile(migrations.Files, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, finding := range broken(string(text)) {
			t.Errorf("%s %s\n(or say on the line before: %s why)", file, finding, waiver)
		}
	}
}

func TestRulesFindWhatTheyAreFor(t *testing.T) {
	for statement, want := range map[string]string{
		"alter table tenants drop column x;":                             "drops a column",
		"drop table x;":                                                  "drops a table",
		"alter table tenants rename column a to b;":                      "renames",
		"alter table events alter column a type bigint;":                 "changes a column's type",
		"alter table tenants alter column a set not null;":               "forbids null",
		"alter table tenants add column a text not null;":                "without a default",
		"create index x on attempts (event_id);":                         "builds an index",
		"create unique index x on only events (event_id);":               "builds an index",
		"alter table events add constraint c check (a > 0);":             "validates a constraint",
		"alter table tenants add column a text not null default '';":     "",
		"alter table tenants add column a text;":                         "",
		"create index concurrently x on attempts (event_id);":            "",
		"create index x on tenants (tenant_id);":                         "",
		"-- drop column, one day\nselect 1;":                             "",
		"-- +goose Down\ndrop table x;":                                  "",
		"-- safe under load: nobody has it\nalter table t drop column x": "",
	} {
		found := broken(statement)
		if want == "" && len(found) > 0 || want != "" && !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("%q: found %q, want %q", statement, found, want)
		}
	}
}
