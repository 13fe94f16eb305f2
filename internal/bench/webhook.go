package bench

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
)

// A body starts with its mark, so that the sink finds run and id at fixed offsets:
//
//	{"bench":"<run, 16 hex digits>","seq":"<id, 16 hex digits>",…
const (
	markRun    = `{"bench":"`
	markSeq    = `","seq":"`
	hexDigits  = 16
	runOffset  = len(markRun)
	seqOffset  = runOffset + hexDigits + len(markSeq)
	markLength = seqOffset + hexDigits
)

// webhook is one connection's request, complete in one buffer. Only delivery id, body
// id and signature change from one webhook to the next.
type webhook struct {
	request   []byte
	keys      uint64
	key       []byte // 8 digits of KeyHeader, inside request; none without keys
	delivery  []byte // last 12 digits of X-GitHub-Delivery, inside request
	signature []byte // 64 hex digits of X-Hub-Signature-256, inside request
	body      []byte // inside request
	mac       hash.Hash
	sum       [sha256.Size]byte
}

// newWebhook lays out a request as GitHub sends it
// (docs.github.com/webhooks, "Webhook events and payloads", delivery headers).
func newWebhook(t target, secret string, run uint64, keys int, payload []byte) *webhook {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\n", t.path, t.host)
	b.WriteString("User-Agent: kapsel-bench\r\nAccept: */*\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\n")
	keyAt, keyDigits := 0, 0
	if keys > 0 {
		b.WriteString(KeyHeader + ": ")
		keyAt, keyDigits = b.Len(), 8
		b.WriteString("00000000\r\n")
	}
	// A version 4 UUID: its random part is the run, its last group the webhook's id.
	fmt.Fprintf(&b, "X-GitHub-Delivery: %08x-%04x-4%03x-8%03x-", run>>32, run>>16&0xffff, run>>4&0xfff, run&0xf)
	deliveryAt := b.Len()
	b.WriteString("000000000000\r\nX-Hub-Signature-256: sha256=")
	signatureAt := b.Len()
	b.Write(make([]byte, hex.EncodedLen(sha256.Size)))
	fmt.Fprintf(&b, "\r\nContent-Length: %d\r\n\r\n", len(payload))
	bodyAt := b.Len()
	b.Write(payload)

	request := b.Bytes()
	return &webhook{
		request:   request,
		keys:      uint64(keys),
		key:       request[keyAt : keyAt+keyDigits],
		delivery:  request[deliveryAt : deliveryAt+12],
		signature: request[signatureAt : signatureAt+hex.EncodedLen(sha256.Size)],
		body:      request[bodyAt:],
		mac:       hmac.New(sha256.New, []byte(secret)),
	}
}

// stamp makes the request the one of this id, and returns it. The bytes are good until
// the next stamp.
func (w *webhook) stamp(id uint64) []byte {
	putHex(w.delivery, id)
	if w.keys > 0 {
		putHex(w.key, id%w.keys)
	}
	putHex(w.body[seqOffset:markLength], id)
	w.mac.Reset()
	w.mac.Write(w.body)
	hex.Encode(w.signature, w.mac.Sum(w.sum[:0]))
	return w.request
}

// newPayload makes a run's JSON body of size bytes, with id 0. The filler is random, so
// that neither wire nor table compresses it to something smaller than was asked for.
func newPayload(run uint64, size int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `%s%016x%s%016x","ref":"refs/heads/main","repository":{"full_name":"kapsel/bench"},"filler":"`, markRun, run, markSeq, 0)
	const end = `"}`
	random := make([]byte, size)
	rand.Read(random) // never fails: crypto/rand ends the process instead
	filler := base64.RawURLEncoding.EncodeToString(random)
	b.WriteString(filler[:size-b.Len()-len(end)])
	b.WriteString(end)
	return b.Bytes()
}

// Payload is a JSON body of size bytes, as the generator's are, of no run.
func Payload(size int) []byte { return newPayload(0, size) }

// readMark finds run and id in the first bytes of a body.
func readMark(body []byte) (run, id uint64, ok bool) {
	if len(body) < markLength || string(body[:runOffset]) != markRun ||
		string(body[runOffset+hexDigits:seqOffset]) != markSeq {
		return 0, 0, false
	}
	run, ok = readHex(body[runOffset : runOffset+hexDigits])
	if !ok {
		return 0, 0, false
	}
	id, ok = readHex(body[seqOffset:markLength])
	return run, id, ok
}

// putHex fills dst with v's lowest digits, leading zeros included.
func putHex(dst []byte, v uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = "0123456789abcdef"[v&0xf]
		v >>= 4
	}
}

// readHex reads up to 16 lower-case hex digits.
func readHex(src []byte) (v uint64, ok bool) {
	for _, c := range src {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(c)
	}
	return v, true
}
