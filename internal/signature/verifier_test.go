package signature

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestFlippedBitNeverVerifies(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			verifier, now := v.verifier(t), time.Unix(v.at, 0)
			// Other items of the list are not covered by the signature.
			covered, _, _ := strings.Cut(v.value, ",v0=6ffb")
			for i := range covered {
				for bit := range 8 {
					value := []byte(v.value)
					value[i] ^= 1 << bit
					if strings.EqualFold(string(value), v.value) && v.preset.Encoding == Hex && i >= strings.LastIndex(covered, "=")+1 {
						continue // hexadecimal digits in the other case are the same signature
					}
					h := v.request()
					h.Set(v.header, string(value))
					if verifier.Verify(h, []byte(v.body), now) == nil {
						t.Fatalf("bit %d of byte %d of the header flipped: verified %q", bit, i, value)
					}
				}
			}
			for i := range v.body {
				for bit := range 8 {
					body := []byte(v.body)
					body[i] ^= 1 << bit
					if v.url != "" && strings.EqualFold(string(body), v.body) {
						continue // a digit of an escape in the other case
					}
					if err := verifier.Verify(v.request(), body, now); !errors.Is(err, ErrBadSignature) && (v.url == "" || !errors.Is(err, ErrMalformedSignature)) {
						t.Fatalf("bit %d of byte %d of the body flipped: error = %v, want ErrBadSignature", bit, i, err)
					}
				}
			}
			for _, body := range [][]byte{nil, []byte(v.body[1:]), []byte(v.body + "x")} {
				if err := verifier.Verify(v.request(), body, now); !errors.Is(err, ErrBadSignature) {
					t.Errorf("body %q: error = %v, want ErrBadSignature", body, err)
				}
			}
		})
	}
}

func TestTimestampMustBeWithinTheToleranceBothWays(t *testing.T) {
	for _, v := range vectors {
		if !strings.Contains(v.preset.Content, "{timestamp}") || v.preset.Tolerance != defaultTolerance {
			continue
		}
		for _, c := range []struct {
			late time.Duration
			want error
		}{
			{0, nil}, {300 * time.Second, nil}, {-300 * time.Second, nil},
			{300*time.Second + 1, ErrStaleTimestamp}, {-300*time.Second - 1, ErrFutureTimestamp},
			{24 * time.Hour, ErrStaleTimestamp}, {-24 * time.Hour, ErrFutureTimestamp},
			{100 * 365 * 24 * time.Hour, ErrStaleTimestamp},
		} {
			err := v.verifier(t).Verify(v.request(), []byte(v.body), time.Unix(v.at, 0).Add(c.late))
			if !errors.Is(err, c.want) {
				t.Errorf("%s, read %v late: error = %v, want %v", v.name, c.late, err, c.want)
			}
		}
	}
}

func TestConfiguredToleranceReplacesThePresets(t *testing.T) {
	verifier, err := NewVerifier(Config{Preset: PresetStandardWebhooks, Tolerance: 10 * time.Second}, asBytes([]string{specSecret}))
	if err != nil {
		t.Fatal(err)
	}
	v := checker{Verifier: verifier}
	h := vectors[0].request()
	if err := v.Verify(h, []byte(specBody), specTime.Add(10*time.Second)); err != nil {
		t.Errorf("after 10 s: %v", err)
	}
	if err := v.Verify(h, []byte(specBody), specTime.Add(11*time.Second)); !errors.Is(err, ErrStaleTimestamp) {
		t.Errorf("after 11 s: error = %v, want ErrStaleTimestamp", err)
	}
}

func TestBadHeadersAreToldApart(t *testing.T) {
	const (
		sig, id, ts = "Webhook-Signature", "Webhook-Id", "Webhook-Timestamp"
		stripeSig   = "Stripe-Signature"
		stripeHex   = "88a022085c6bdb887b02cb26ff76dd681234d9675c0f22844059f55552a8883a"
		wrongV1     = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	)
	standard, ed25519, github, stripe := vectors[0], vectors[2], vectors[5], vectors[6]
	for _, c := range []struct {
		name   string
		vector vector
		header string
		values []string
		want   error
	}{
		{"signature absent", standard, sig, nil, ErrMissingSignature},
		{"signature empty", standard, sig, []string{""}, ErrMissingSignature},
		{"id absent", standard, id, nil, ErrMissingSignature},
		{"id empty", standard, id, []string{""}, ErrMissingSignature},
		{"timestamp absent", standard, ts, nil, ErrMissingSignature},
		{"timestamp empty", standard, ts, []string{""}, ErrMissingSignature},
		{"signature repeated", standard, sig, []string{specV1, specV1}, ErrMalformedSignature},
		{"id repeated", standard, id, []string{specID, specID}, ErrMalformedSignature},
		{"timestamp repeated", standard, ts, []string{"1614265330", "1614265330"}, ErrMalformedSignature},
		{"wrong version", standard, sig, []string{"v2" + specV1[2:]}, ErrMalformedSignature},
		{"version alone", standard, sig, []string{"v1"}, ErrMalformedSignature},
		{"empty item", standard, sig, []string{"v1,"}, ErrMalformedSignature},
		{"no version", standard, sig, []string{specV1[3:]}, ErrMalformedSignature},
		{"unpadded", standard, sig, []string{strings.TrimRight(specV1, "=")}, ErrMalformedSignature},
		{"part of a signature", standard, sig, []string{specV1[:12]}, ErrMalformedSignature},
		{"hex for base64", standard, sig, []string{"v1," + stripeHex}, ErrMalformedSignature},
		{"base64 with bits beyond the end", standard, sig, []string{strings.Replace(specV1, "OE=", "OF=", 1)}, ErrMalformedSignature},
		{"other signature", standard, sig, []string{wrongV1}, ErrBadSignature},
		{"Ed25519 only", standard, sig, []string{specV1a}, ErrMalformedSignature},
		{"HMAC only", ed25519, sig, []string{specV1}, ErrMalformedSignature},
		{"Ed25519 too short", ed25519, sig, []string{"v1a" + specV1[2:]}, ErrMalformedSignature},
		{"too many signatures", standard, sig, []string{strings.Repeat(wrongV1+" ", 8) + specV1}, ErrMalformedSignature},
		{"too many bad signatures", standard, sig, []string{strings.Repeat("v1, ", 8) + specV1}, ErrMalformedSignature},
		{"too many Ed25519 signatures", ed25519, sig, []string{strings.Repeat(specV1a+" ", 9)}, ErrMalformedSignature},
		{"long header", standard, sig, []string{specV1 + strings.Repeat(" v9,x", 1000)}, ErrMalformedSignature},
		{"header bomb of separators", standard, sig, []string{strings.Repeat(" ", 4096)}, ErrMalformedSignature},
		{"long id", standard, id, []string{strings.Repeat("x", 513)}, ErrMalformedSignature},
		{"id with a full stop", standard, id, []string{specID + ".1"}, ErrMalformedSignature},
		{"other id", standard, id, []string{"msg_other"}, ErrBadSignature},
		{"other timestamp", standard, ts, []string{"1614265331"}, ErrBadSignature},
		{"timestamp with a sign", standard, ts, []string{"+1614265330"}, ErrMalformedSignature},
		{"timestamp with a leading zero", standard, ts, []string{"01614265330"}, ErrMalformedSignature},
		{"timestamp in words", standard, ts, []string{"now"}, ErrMalformedSignature},
		{"timestamp with a fraction", standard, ts, []string{"1614265330.5"}, ErrMalformedSignature},
		{"timestamp beyond all bounds", standard, ts, []string{"99999999999999999999"}, ErrMalformedSignature},
		{"timestamp in milliseconds, 13 digits", standard, ts, []string{"1614265330000"}, ErrMalformedSignature},
		{"timestamp zero", standard, ts, []string{"0"}, ErrMalformedSignature},
		{"no prefix", github, "X-Hub-Signature-256", []string{github.value[7:]}, ErrMalformedSignature},
		{"other hash", github, "X-Hub-Signature-256", []string{"sha1=" + github.value[7:]}, ErrMalformedSignature},
		{"not hex", github, "X-Hub-Signature-256", []string{"sha256=" + strings.Repeat("z", 64)}, ErrMalformedSignature},
		{"two in one item", github, "X-Hub-Signature-256", []string{github.value + "," + github.value}, ErrMalformedSignature},
		{"no timestamp item", stripe, stripeSig, []string{"v1=" + stripeHex}, ErrMissingSignature},
		{"empty timestamp item", stripe, stripeSig, []string{"t=,v1=" + stripeHex}, ErrMissingSignature},
		{"two timestamps", stripe, stripeSig, []string{"t=1492774577,t=1492774578,v1=" + stripeHex}, ErrMalformedSignature},
		{"no signature item", stripe, stripeSig, []string{"t=1492774577"}, ErrMalformedSignature},
		{"old scheme only", stripe, stripeSig, []string{"t=1492774577,v0=" + stripeHex}, ErrMalformedSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.vector.request()
			delete(h, c.header)
			if c.values != nil {
				h[c.header] = c.values
			}
			err := c.vector.verifier(t).Verify(h, []byte(c.vector.body), time.Unix(c.vector.at, 0))
			if !errors.Is(err, c.want) {
				t.Errorf("error = %v, want %v", err, c.want)
			}
		})
	}
}

func TestGoodSignatureIsFoundAmongOthers(t *testing.T) {
	const other = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for _, value := range []string{
		other + " " + specV1, specV1 + " " + other, "v2,abc " + specV1, specV1a + " " + specV1,
		" " + specV1 + "  ", "v1,broken " + specV1, strings.Repeat(other+" ", 7) + specV1,
	} {
		h := vectors[0].request()
		h.Set("Webhook-Signature", value)
		if err := vectors[0].verifier(t).Verify(h, []byte(specBody), specTime); err != nil {
			t.Errorf("%q: %v", value, err)
		}
	}
}

// An id that could take the timestamp's place must not let a captured message pass as a new one.
func TestSignedTextCannotBeCutAnotherWay(t *testing.T) {
	v := vectors[0]
	body := []byte("1714265330.replayed")
	h := v.sign(t, body)
	h.Set("Webhook-Id", specID+".1614265330")
	h.Set("Webhook-Timestamp", "1714265330")
	if err := v.verifier(t).Verify(h, []byte("replayed"), time.Unix(1714265330, 0)); !errors.Is(err, ErrMalformedSignature) {
		t.Errorf("error = %v, want ErrMalformedSignature", err)
	}
}

func TestErrorsDoNotQuoteTheRequest(t *testing.T) {
	const mark = "attacker-text"
	for _, name := range []string{"Webhook-Signature", "Webhook-Id", "Webhook-Timestamp"} {
		h := vectors[0].request()
		h.Set(name, mark+".")
		err := vectors[0].verifier(t).Verify(h, []byte(mark), specTime)
		if err == nil || strings.Contains(err.Error(), mark) {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}

func TestVerifyAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled states at random")
	}
	body := bytes.Repeat([]byte("x"), 1024)
	for _, v := range vectors {
		if v.unsignable || v.url != "" {
			continue // public keys and forms are dearer
		}
		h := v.sign(t, body)
		verifier, now := v.verifier(t), time.Unix(v.at, 0)
		forged := h.Clone()
		forged.Set(v.header, "v9")
		n := testing.AllocsPerRun(200, func() {
			if err := verifier.Verify(h, body, now); err != nil {
				t.Fatal(err)
			}
			if verifier.Verify(forged, body, now) == nil {
				t.Fatal("forged header verified")
			}
		})
		if n > 0 {
			t.Errorf("%s: %v allocations a request, want 0", v.name, n)
		}
	}
}

func TestVerifierIsSafeForConcurrentUse(t *testing.T) {
	for _, v := range vectors[:3] {
		verifier := v.verifier(t)
		done := make(chan error)
		for i := range 4 {
			go func() {
				var err error
				for range 200 {
					body, want := v.body, error(nil)
					if i%2 == 1 {
						body, want = v.body+"!", ErrBadSignature
					}
					if got := verifier.Verify(v.request(), []byte(body), time.Unix(v.at, 0)); !errors.Is(got, want) {
						err = errors.Join(err, got)
					}
				}
				done <- err
			}()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}
