package kapsel_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const (
	logKey      = "log.example.com/log/1+4a5917dc+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
	provedEvent = "evt_030g2gc1r81450p30d1r7h048j"
	provedTry   = "att_01081g81860w40j2gb1g6gw3rg"
	otherEvent  = "evt_00000000000000000000000000"
)

// prover is a server that answers the packages it is given, after some answers that the log is not sealed.
type prover struct {
	kapselv1connect.UnimplementedAttestationServiceHandler
	packages [][]byte
	unsealed int32
	calls    atomic.Int32
	called   func(n int32)
}

func (p *prover) GetProofPackage(context.Context, *kapselv1.GetProofPackageRequest) (*kapselv1.GetProofPackageResponse, error) {
	n := p.calls.Add(1)
	if p.called != nil {
		p.called(n)
	}
	if n <= p.unsealed {
		return nil, failure(connect.CodeFailedPrecondition, &errdetails.ErrorInfo{Reason: "NOT_SEALED", Domain: "kapsel.dev"}, soon)
	}
	response := new(kapselv1.GetProofPackageResponse)
	for _, data := range p.packages {
		response.Packages = append(response.Packages, &kapselv1.ProofPackage{Json: data})
	}
	return response, nil
}

func (p *prover) client(t *testing.T) *kapsel.Client {
	t.Helper()
	server := connect.NewServer()
	kapselv1connect.RegisterAttestationServiceHandler(server, p)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	listening := httptest.NewServer(mux)
	t.Cleanup(listening.Close)
	client, err := kapsel.New(listening.URL)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func readProof(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("verify/testdata/" + name + ".proof.json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Whatever a server answers, what comes out is proved, and is of what was asked for.
func TestProofsOfAServerThatLiesAreRefused(t *testing.T) {
	attempt, deadLetter := readProof(t, "attempt"), readProof(t, "dead_letter")
	otherKey := strings.Replace(logKey, "log.example.com/log/1+", "log.example.com/log/2+", 1)
	for _, test := range []struct {
		name     string
		packages [][]byte
		id       string
		keys     []string
		want     string // of the error; "" is none
	}{
		{"what is true", [][]byte{attempt, deadLetter}, provedEvent, []string{logKey}, ""},
		{"an attempt", [][]byte{attempt}, provedTry, []string{logKey}, ""},
		{"another event's", [][]byte{attempt}, otherEvent, []string{logKey}, "does not name " + otherEvent},
		{"another attempt's", [][]byte{deadLetter}, provedTry, []string{logKey}, "does not name " + provedTry},
		{"a forged one", [][]byte{attempt, bytes.Replace(attempt, []byte("succeeded"), []byte("failed"), 1)}, provedEvent, []string{logKey}, "proof 2 of 2 of " + provedEvent + ": leaf: "},
		{"one that is cut short", [][]byte{attempt[:len(attempt)-2]}, provedEvent, []string{logKey}, "format: "},
		{"a large one", [][]byte{bytes.Repeat([]byte("{"), verify.MaxPackageBytes+1)}, provedEvent, []string{logKey}, "format: "},
		{"none", nil, provedEvent, []string{logKey}, "the server answered none"},
		{"under a key that the server has told", [][]byte{attempt}, provedEvent, nil, "give the log's public key"},
		{"under a key of nobody", [][]byte{attempt}, provedEvent, []string{""}, "trusted key"},
		{"under another key", [][]byte{attempt}, provedEvent, []string{otherKey}, ": "},
		{"of a destination", [][]byte{attempt}, "dst_1", []string{logKey}, "is not the id of an event"},
	} {
		t.Run(test.name, func(t *testing.T) {
			proofs, err := (&prover{packages: test.packages}).client(t).GetVerifiedProofs(t.Context(), test.id, test.keys...)
			if test.want == "" {
				if err != nil || len(proofs) != len(test.packages) || !proofs[0].Report.Full || !bytes.Equal(proofs[0].JSON, test.packages[0]) {
					t.Errorf("got %d proofs and error %v", len(proofs), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || proofs != nil {
				t.Errorf("got %d proofs and error %v, want %q", len(proofs), err, test.want)
			}
			if refused := (*verify.Error)(nil); strings.HasPrefix(test.want, "does not name") && !errors.As(err, &refused) {
				t.Errorf("%v is not a *verify.Error", err)
			}
		})
	}
}

func TestProofsAreWaitedFor(t *testing.T) {
	p := &prover{packages: [][]byte{readProof(t, "attempt")}, unsealed: 2}
	if _, err := p.client(t).GetVerifiedProofs(t.Context(), provedEvent, logKey); err != nil || p.calls.Load() != 3 {
		t.Errorf("%d calls and error %v", p.calls.Load(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p = &prover{unsealed: 1 << 30, called: func(n int32) {
		if n == 3 {
			cancel()
		}
	}}
	if _, err := p.client(t).GetVerifiedProofs(ctx, provedEvent, logKey); !errors.Is(err, context.Canceled) && connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("got error %v after ctx had ended", err)
	}
}
