// Package migrations embeds the schema's history: numbered goose files, forward only, each safe under load.
package migrations

import "embed"

// Files holds the goose migrations.
//
//go:embed *.sql
var Files embed.FS
