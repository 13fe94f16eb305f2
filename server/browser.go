package server

import (
	"net/http"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"
)

// corsMaxAge is for how long a browser need not ask again, in seconds: the longest that Chromium honours.
const corsMaxAge = 7200

// What each answer says to a browser. Slices of one value, shared: they are never changed.
var (
	noSniff       = []string{"nosniff"}
	noReferrer    = []string{"no-referrer"}
	noFrames      = []string{"DENY"}
	onlyData      = []string{"default-src 'none'; frame-ancestors 'none'"}
	strictForYear = []string{"max-age=31536000"}
)

// secured sets the headers that keep a browser from doing more with an answer than it should. A handler that serves pages
// sets its own Content-Security-Policy. HSTS (RFC 6797) is only sent where clients come by TLS: tls says so.
func secured(next http.Handler, tls bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header["X-Content-Type-Options"] = noSniff
		if tls {
			header["Strict-Transport-Security"] = strictForYear
		}
		if len(r.URL.Path) < len(ingestPath) || r.URL.Path[:len(ingestPath)] != ingestPath { // what sources get is for no browser
			header["Referrer-Policy"] = noReferrer
			header["X-Frame-Options"] = noFrames
			header["Content-Security-Policy"] = onlyData
		}
		next.ServeHTTP(w, r)
	})
}

// shared lets pages of some origins call the API: Connect and gRPC-Web, with a key that the page has. No cookies, so
// nothing can be done in a visitor's name. Without origins the API answers no page but its own.
func shared(calls http.Handler, origins []string) http.Handler {
	if len(origins) == 0 {
		return calls
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: append(connectcors.AllowedHeaders(), "Authorization", "Idempotency-Key"),
		ExposedHeaders: append(connectcors.ExposedHeaders(), "Retry-After"),
		MaxAge:         corsMaxAge,
	}).Handler(calls)
}
