package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEveryWebhookIsAccountedFor(t *testing.T) {
	f := startForwarder(t)
	r := f.run(Config{Conns: 4, Duration: 200 * time.Millisecond})
	if err := r.Err(); err != nil {
		t.Fatalf("a clean run failed: %v", err)
	}
	if r.Accepted == 0 || r.Delivered != r.Accepted || r.Recorded != r.Accepted || r.Sealed != r.Accepted {
		t.Errorf("accepted %d, delivered %d, recorded %d, sealed %d: want all equal and some", r.Accepted, r.Delivered, r.Recorded, r.Sealed)
	}
	if r.Lost != 0 || r.Duplicated != 0 || r.Foreign != 0 || r.UnackedDelivered != 0 || r.ConnectionErrors != 0 {
		t.Errorf("a clean run reports trouble: %+v", r)
	}
	if len(f.deliveries) != int(r.Accepted) {
		t.Errorf("%d webhooks had %d delivery ids", r.Accepted, len(f.deliveries))
	}
	if r.AckP50 <= 0 || r.AckP50 > r.AckP99 || r.E2EP50 <= 0 || r.E2EP50 > r.E2EP99 {
		t.Errorf("latencies are out of order: %+v", r)
	}
	for name, rate := range map[string]float64{"accepted": r.AcceptedPerSecond, "delivered": r.DeliveredPerSecond, "recorded": r.RecordedPerSecond, "sealed": r.SealedPerSecond} {
		if most := float64(r.Accepted) / 0.15; rate <= 0 || rate > most {
			t.Errorf("%s: %.0f a second, want up to %.0f", name, rate, most)
		}
	}
	if r.RoundTrips == nil || *r.RoundTrips != 2 {
		t.Errorf("round trips per webhook: got %s, want 2", optional(r.RoundTrips))
	}
	if r.WALBytes == nil || *r.WALBytes != 4000 {
		t.Errorf("write-ahead log per webhook: got %s bytes, want 4000", optional(r.WALBytes))
	}
	if r.ProofP99 == nil || *r.ProofP99 < 2.9 || *r.ProofP99 > 3.1 {
		t.Errorf("proof p99: got %s, want 3 ms", optional(r.ProofP99))
	}
	if r.SealP99 != nil {
		t.Errorf("seal p99: got %s from a seal before the run, want unknown", optional(r.SealP99))
	}
}

func TestAckedButNeverForwardedIsLost(t *testing.T) {
	f := startForwarder(t)
	f.answer = func(w http.ResponseWriter, _ *http.Request, id uint64) int {
		w.WriteHeader(http.StatusAccepted)
		if id == 3 || id == 7 {
			return 0
		}
		return 1
	}
	r := f.run(Config{Conns: 2, Duration: 100 * time.Millisecond, DrainTimeout: 200 * time.Millisecond})
	if r.Lost != 2 || r.Delivered != r.Accepted-2 {
		t.Errorf("lost %d, delivered %d of %d: want 2 lost", r.Lost, r.Delivered, r.Accepted)
	}
	if r.Err() == nil {
		t.Error("a run that lost webhooks passes")
	}
}

func TestLossInTheWarmupCounts(t *testing.T) {
	f := startForwarder(t)
	lost := false
	f.answer = func(w http.ResponseWriter, _ *http.Request, id uint64) int {
		w.WriteHeader(http.StatusAccepted)
		if id == 0 && !lost {
			lost = true
			return 0
		}
		return 1
	}
	r := f.run(Config{Conns: 1, Warmup: 50 * time.Millisecond, Duration: 50 * time.Millisecond, DrainTimeout: 200 * time.Millisecond})
	if r.Lost != 1 || r.Delivered != r.Accepted {
		t.Errorf("lost %d, delivered %d of %d: want 1 lost, before the measured part", r.Lost, r.Delivered, r.Accepted)
	}
}

func TestSecondDeliveryIsADuplicate(t *testing.T) {
	f := startForwarder(t)
	f.answer = func(w http.ResponseWriter, _ *http.Request, id uint64) int {
		w.WriteHeader(http.StatusAccepted)
		if id < 3 {
			return 2
		}
		return 1
	}
	r := f.run(Config{Conns: 2, Duration: 100 * time.Millisecond})
	if r.Duplicated != 3 || r.Lost != 0 || r.Recorded != r.Accepted+3 {
		t.Errorf("duplicated %d, lost %d, recorded %d of %d: want 3 duplicates, each with its attempt", r.Duplicated, r.Lost, r.Recorded, r.Accepted)
	}
	if err := r.Err(); err != nil {
		t.Errorf("at least once is promised, yet duplicates fail the run: %v", err)
	}
}

func TestRefusedForNowIsSentAgainWithTheSameID(t *testing.T) {
	f := startForwarder(t)
	seen := map[uint64]int{}
	f.answer = func(w http.ResponseWriter, _ *http.Request, id uint64) int {
		seen[id]++
		switch {
		case id == 1 && seen[id] <= 2:
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return 0
		case id == 2 && seen[id] == 1:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "slow down", http.StatusTooManyRequests)
			return 0
		}
		w.WriteHeader(http.StatusAccepted)
		return 1
	}
	cfg := Config{IngestURL: f.url, Secret: testSecret, Conns: 1}.withDefaults()
	p, err := runPhase(t.Context(), cfg.withDefaults(), stageLoad, 1300*time.Millisecond, f.sink, f)
	if err != nil {
		t.Fatal(err)
	}
	if p.refused[503] != 2 || p.refused[429] != 1 || p.lost != 0 {
		t.Errorf("refused %v, lost %d: want 503 x 2, 429 x 1, none lost", p.refused, p.lost)
	}
	if seen[1] != 3 || seen[2] != 2 || p.accepted != int64(len(seen)) {
		t.Errorf("posts of 1: %d, of 2: %d, accepted %d of %d: want 3, 2 and all", seen[1], seen[2], p.accepted, len(seen))
	}
	if slowest := p.ack.ms(100); slowest < 1000 {
		t.Errorf("the slowest ack took %.0f ms, without the second that Retry-After asked for", slowest)
	}
}

func TestRefusalToTheEndIsAFailedRunWithoutLoss(t *testing.T) {
	f := startForwarder(t)
	f.answer = func(w http.ResponseWriter, _ *http.Request, _ uint64) int {
		http.Error(w, "bad signature", http.StatusUnauthorized)
		return 0
	}
	r := f.run(Config{Conns: 1, Duration: 50 * time.Millisecond})
	if r.Accepted != 0 || r.Lost != 0 || r.Rejected[401] == 0 {
		t.Errorf("got %+v, want only 401", r)
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "401 x") {
		t.Errorf("got %v, want an error that names the status", err)
	}
}

func TestBrokenOffRequestIsNotAckedButItsDeliveryShows(t *testing.T) {
	f := startForwarder(t)
	f.answer = func(w http.ResponseWriter, _ *http.Request, id uint64) int {
		if id == 2 {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Errorf("hijack: %v", err)
				return 0
			}
			conn.Close()
			return 1
		}
		w.WriteHeader(http.StatusAccepted)
		return 1
	}
	r := f.run(Config{Conns: 1, Duration: 200 * time.Millisecond})
	if r.UnackedDelivered != 1 || r.ConnectionErrors != 1 || r.Lost != 0 || r.Err() != nil {
		t.Errorf("unacked delivered %d, connection errors %d, lost %d, %v: want 1, 1, 0, nil", r.UnackedDelivered, r.ConnectionErrors, r.Lost, r.Err())
	}
	if r.Accepted < 3 {
		t.Errorf("accepted %d: the connection was not opened again", r.Accepted)
	}
}

func TestEveryShapeOfAnswerIsUnderstood(t *testing.T) {
	shapes := map[string]func(http.ResponseWriter){
		"chunked": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusAccepted)
			for range 3 {
				w.Write(bytes.Repeat([]byte("x"), 5000))
				w.(http.Flusher).Flush()
			}
		},
		"connection close": func(w http.ResponseWriter) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusAccepted)
			w.Write([]byte(`{"event_id":"evt_1"}`))
		},
		"until close": func(w http.ResponseWriter) {
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Errorf("hijack: %v", err)
				return
			}
			defer conn.Close()
			rw.WriteString("HTTP/1.1 202 Accepted\r\n\r\n{}")
			rw.Flush()
		},
		"interim": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusAccepted)
		},
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			f := startForwarder(t)
			f.answer = func(w http.ResponseWriter, _ *http.Request, _ uint64) int { shape(w); return 1 }
			r := f.run(Config{Conns: 2, Duration: 50 * time.Millisecond})
			if r.Accepted < 2 || r.ConnectionErrors != 0 || len(r.Rejected) != 0 || r.Err() != nil {
				t.Errorf("accepted %d, connection errors %d, rejected %v, %v: want some, 0, none, nil", r.Accepted, r.ConnectionErrors, r.Rejected, r.Err())
			}
		})
	}
}

func TestScheduleKeepsTheRate(t *testing.T) {
	f := startForwarder(t)
	r := f.run(Config{Conns: 8, Duration: time.Second, Rate: 400})
	if r.Accepted+r.Unsent != 400 || r.Unsent > 8 {
		t.Errorf("accepted %d, unsent %d: want 400 in all, nearly all sent", r.Accepted, r.Unsent)
	}
	if r.AcceptedPerSecond < 330 || r.AcceptedPerSecond > 410 {
		t.Errorf("%.0f a second, want about 400", r.AcceptedPerSecond)
	}
}

// A stall of 300 ms holds back 60 of 200 webhooks. A generator that only timed what it
// managed to send would see a single slow one.
func TestStallCountsForEveryWebhookItHeldBack(t *testing.T) {
	f := startForwarder(t)
	f.answer = func(w http.ResponseWriter, _ *http.Request, id uint64) int {
		if id == 20 {
			time.Sleep(300 * time.Millisecond)
		}
		w.WriteHeader(http.StatusAccepted)
		return 1
	}
	cfg := Config{IngestURL: f.url, Secret: testSecret, Conns: 1, Rate: 200, Duration: time.Second}
	p, err := runPhase(t.Context(), cfg.withDefaults(), stageLoad, cfg.Duration, f.sink, f)
	if err != nil {
		t.Fatal(err)
	}
	if at70, at99 := p.ack.ms(70), p.ack.ms(99); at70 < 1 || p.ack.ms(85) < 100 || at99 < 250 {
		t.Errorf("ack p70 %.1f ms, p85 %.1f ms, p99 %.1f ms: the stall is hidden", at70, p.ack.ms(85), at99)
	}
}

func TestCancelledRunEndsAtOnce(t *testing.T) {
	for name, rate := range map[string]float64{"closed loop": 0, "open loop": 3} {
		t.Run(name, func(t *testing.T) {
			f := startForwarder(t)
			release := make(chan struct{})
			f.answer = func(http.ResponseWriter, *http.Request, uint64) int { <-release; return 0 }
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err := Run(ctx, Config{IngestURL: f.url, Secret: testSecret, Conns: 3, Duration: time.Minute, Rate: rate}, f.sink, f)
			close(release)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's error", err)
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("took %s to end", d)
			}
		})
	}
}

func TestUnreachableServerIsAnError(t *testing.T) {
	f := startForwarder(t)
	_, err := Run(t.Context(), Config{IngestURL: "http://127.0.0.1:1/ingest/x", Secret: testSecret}, f.sink, f)
	if err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("got %v, want a failed connect", err)
	}
}

func TestConfigNamesEveryFieldOutOfBounds(t *testing.T) {
	err := Config{IngestURL: "ftp://x", Conns: -1, Duration: -1, Rate: -1, PayloadBytes: 10}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"ingest URL", "secret", "connections", "duration", "rate", "payload"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

func TestResultHasTheDocumentedKeys(t *testing.T) {
	raw, err := json.Marshal(newResult(Config{}, phase{}, phase{roundTrips: -1}))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Fields(`accepted_per_s delivered_per_s recorded_per_s sealed_per_s ack_p50_ms ack_p99_ms
		e2e_p50_ms e2e_p99_ms seal_p99_ms proof_p99_ms lost duplicated db_round_trips_per_webhook`) {
		if _, ok := got[key]; !ok {
			t.Errorf("no key %s in %s", key, raw)
		}
	}
	if got["db_round_trips_per_webhook"] != nil {
		t.Errorf("unknown round trips: got %v, want null", got["db_round_trips_per_webhook"])
	}
}

func TestTableShowsCountsAndUnknowns(t *testing.T) {
	var b bytes.Buffer
	r := Result{Accepted: 12, AcceptedPerSecond: 34, Lost: 5, Rejected: map[int]int64{503: 2, 429: 1}}
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"accepted", "12", "34", "lost 5", "429 x 1, 503 x 2", "unknown"} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("no %q in\n%s", part, b.String())
		}
	}
}
