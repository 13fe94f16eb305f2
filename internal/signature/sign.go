package signature

import (
	"net/http"
	"time"
)

// Sign returns the headers that the source of cfg would send with body. It serves presets whose
// signatures stand in headers and cover neither method nor URL; SignRequest serves all.
func Sign(cfg Config, secret, body []byte, now time.Time, id string) (http.Header, error) {
	r, err := SignRequest(cfg, secret, Request{Body: body}, now, id)
	return r.Header, err
}
