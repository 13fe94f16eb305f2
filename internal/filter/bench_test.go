package filter

import (
	"strings"
	"testing"
)

func BenchmarkMeets(b *testing.B) {
	body := strings.TrimSuffix(order, "}") + `, "text": "` + strings.Repeat("x", 800) + `"}`
	for name, expression := range map[string]string{
		"none":    ``,
		"type":    `event_type == "order.paid"`,
		"header":  `headers["x-shop"] == "first"`,
		"payload": `payload.customer.country in ["DE", "AT"] && payload.total > 10`,
		"loop":    `payload.lines.exists(l, l.sku == "b-2")`,
	} {
		f := mustNew(b, nil, expression)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.Meets(event(body))
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		mustNew(b, nil, `payload.customer.country in ["DE", "AT"] && payload.total > 10`)
	}
}
