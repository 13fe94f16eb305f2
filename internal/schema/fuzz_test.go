package schema

import "testing"

// A schema of a tenant is compiled or refused, in bounded time and without reading anything else.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{`{"type":"object"}`, `{"$ref":"#"}`, `{"$ref":"file:///etc/passwd"}`, `{"allOf":[{},{}]}`, `{"pattern":"(a+)+$"}`, "true", "[", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		if compiled, err := Compile(text); err == nil {
			compiled.Defect([]byte(`{"a":[1,2,{"b":"c"}]}`))
		}
	})
}
