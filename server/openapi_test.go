package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	contract "github.com/kapsel-dev/kapsel/proto"
)

// The schema in testdata is the OpenAPI Initiative's own, https://spec.openapis.org/oas/3.1/schema/2022-10-07.
func TestOpenAPIDocumentIsValidWholeAndServed(t *testing.T) {
	committed := must(os.ReadFile("../proto/openapi.yaml"))(t)
	r := newRig(t)
	response := must(r.client.Get(r.url + "/openapi.yaml"))(t)
	defer response.Body.Close()
	served := must(io.ReadAll(response.Body))(t)
	if response.StatusCode != http.StatusOK || !bytes.Equal(served, committed) || !strings.HasPrefix(response.Header.Get("Content-Type"), "application/yaml") {
		t.Errorf("served: %s, %d bytes of %s; want the %d bytes of proto/openapi.yaml", response.Status, len(served), response.Header.Get("Content-Type"), len(committed))
	}
	if !bytes.Equal(committed, contract.OpenAPI()) {
		t.Error("the binary has another document than proto/openapi.yaml")
	}

	var document map[string]any
	if err := yaml.Unmarshal(committed, &document); err != nil {
		t.Fatal(err)
	}
	schema := must(jsonschema.UnmarshalJSON(bytes.NewReader(must(os.ReadFile("testdata/openapi-3.1.schema.json"))(t))))(t)
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("openapi.json", schema); err != nil {
		t.Fatal(err)
	}
	if err := must(compiler.Compile("openapi.json"))(t).Validate(jsonValue(document)); err != nil {
		t.Errorf("the document is not OpenAPI 3.1: %v", err)
	}
	checkSchemas(t, document, document, "#")

	paths := document["paths"].(map[string]any)
	for _, path := range []string{"/ingest/{endpoint_id}", "/log/{log_id}/checkpoint", "/log/{log_id}/tile/{level}/{index}", "/livez", "/readyz", "/openapi.yaml"} {
		if paths[path] == nil {
			t.Errorf("the document has no %s", path)
		}
	}
	for _, method := range rpcs() {
		if path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()); paths[path] == nil {
			t.Errorf("the document has no %s", path)
		}
	}
}

// jsonValue is YAML as JSON has it: keys of objects are text.
func jsonValue(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			v[key] = jsonValue(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = jsonValue(inner)
		}
	case map[any]any:
		object := make(map[string]any, len(v))
		for key, inner := range v {
			object[fmt.Sprint(key)] = jsonValue(inner)
		}
		return object
	case int:
		return float64(v)
	}
	return value
}

// checkSchemas fails for each $ref that leads nowhere, and for what OpenAPI 3.1 has not any more.
func checkSchemas(t *testing.T, document map[string]any, value any, at string) {
	switch v := value.(type) {
	case map[string]any:
		if reference, ok := v["$ref"].(string); ok {
			var found any = document
			for step := range strings.SplitSeq(strings.TrimPrefix(reference, "#/"), "/") {
				object, _ := found.(map[string]any)
				found = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(step)]
			}
			if found == nil {
				t.Errorf("%s: %s leads nowhere", at, reference)
			}
		}
		if _, old := v["nullable"].(bool); old { // a schema of 3.1 may have any word, so that the schema of schemas lets it pass
			t.Errorf("%s: nullable is OpenAPI 3.0's", at)
		}
		for key, inner := range v {
			checkSchemas(t, document, inner, at+"/"+key)
		}
	case []any:
		for i, inner := range v {
			checkSchemas(t, document, inner, fmt.Sprintf("%s/%d", at, i))
		}
	}
}
