package server

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"time"

	contract "github.com/kapsel-dev/kapsel/proto"
)

// newOpenAPIHandler serves the description of the HTTP interface. Every page may read it.
func newOpenAPIHandler() http.Handler {
	document := contract.OpenAPI()
	etag := fmt.Sprintf(`"%x"`, sha256.Sum256(document))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		header := w.Header()
		header.Set("Content-Type", "application/yaml; charset=utf-8")
		header.Set("Cache-Control", "public, max-age=300")
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("ETag", etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
	})
}
