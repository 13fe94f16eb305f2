package server

import (
	"net/http"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

// serveOther serves what is no POST: the handshakes of presets that have one by GET or HEAD. Everything else is refused.
func (h *ingestHandler) serveOther(w http.ResponseWriter, r *http.Request) {
	allow := http.MethodPost
	if r.Method == http.MethodHead || r.Method == http.MethodGet && r.URL.RawQuery != "" {
		endpoint, refused := h.endpoint(r)
		if refused != nil {
			h.refuse(w, r, refused)
			return
		}
		if r.Method == http.MethodHead && endpoint.Verifier.AnswersHEAD() {
			h.answer(w, r, signature.Answer{Status: http.StatusOK}, nil)
			return
		}
		if r.Method == http.MethodGet && endpoint.Verifier.AnswersGET() {
			allow = "GET, POST"
			if answer, is, err := endpoint.Verifier.AnswerGET(r.URL.RawQuery); is {
				h.answer(w, r, answer, err)
				return
			}
		}
	}
	w.Header().Set("Allow", allow)
	h.refuse(w, r, newProblem(http.StatusMethodNotAllowed, kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "send webhooks with POST"))
}

// answerHandshake answers a POST by which the provider tries the endpoint. It reports false if this one is a webhook.
func (h *ingestHandler) answerHandshake(w http.ResponseWriter, r *http.Request, endpoint *route.Endpoint, body []byte, signedURL string) bool {
	request := signature.Request{Method: r.Method, URL: signedURL, Header: r.Header, Body: body}
	answer, is, err := endpoint.Verifier.AnswerPOST(request, r.URL.RawQuery, time.Now())
	if is {
		h.answer(w, r, answer, err)
	}
	return is
}

// answer writes a handshake's answer. It may be text of the other side's choosing, so that no browser may take it for
// anything but what its type says.
func (h *ingestHandler) answer(w http.ResponseWriter, r *http.Request, answer signature.Answer, err error) {
	if err != nil {
		h.fail(w, r, err)
		return
	}
	header := w.Header()
	if answer.ContentType != "" {
		header.Set("Content-Type", answer.ContentType)
	}
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(answer.Status)
	w.Write(answer.Body)
}

// signedURL is the address that the source was given, with the request's query.
func (h *ingestHandler) signedURL(endpoint *route.Endpoint, r *http.Request) string {
	return endpoint.Verifier.URL(h.api.PublicURL+r.URL.Path, r.URL.RawQuery)
}
