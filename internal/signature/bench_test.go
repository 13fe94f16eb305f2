package signature

import (
	"bytes"
	"testing"
	"time"
)

var kibibyte = bytes.Repeat([]byte("x"), 1024)

func BenchmarkVerify(b *testing.B) {
	for _, v := range vectors[:10] {
		b.Run(v.name, func(b *testing.B) {
			now := time.Unix(v.at, 0)
			h := v.sign(b, kibibyte)
			verifier := v.verifier(b)
			b.ReportAllocs()
			b.SetBytes(int64(len(kibibyte)))
			for b.Loop() {
				if err := verifier.Verify(h, kibibyte, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSigner(b *testing.B) {
	for name, secrets := range map[string][]string{"v1": {specSecret}, "two v1": {specSecret, NewSecret()}, "v1a": {specPrivate}} {
		b.Run(name, func(b *testing.B) {
			s, err := NewSigner(asBytes(secrets))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Sign(specID, specTime, kibibyte)
			}
		})
	}
}

func BenchmarkEventTypeFromJSON(b *testing.B) {
	v := vectors[6].verifier(b)
	body := []byte(`{"id":"evt_1","object":"event","data":{"object":{"text":"` + string(kibibyte) + `"}},"type":"invoice.paid"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := v.EventType(nil, body); !ok {
			b.Fatal("not found")
		}
	}
}
