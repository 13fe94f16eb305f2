//go:build gcpkms

package signer

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

const (
	gcpScope     = "https://www.googleapis.com/auth/cloudkms"
	gcpEndpoint  = "https://cloudkms.googleapis.com"
	gcpAlgorithm = "EC_SIGN_ED25519"
	// maxGCPAnswer bounds an answer; the largest is a public key with its attributes.
	maxGCPAnswer = 64 << 10
)

var gcpKeyName = regexp.MustCompile(`^projects/[^/?#]+/locations/[^/?#]+/keyRings/[^/?#]+/cryptoKeys/[^/?#]+/cryptoKeyVersions/[0-9]+$`)

// openGCPKMS opens gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N. Credentials are Google's
// application default ones. The key's algorithm is EC_SIGN_ED25519, and the service needs the role
// roles/cloudkms.signerVerifier. It speaks the REST API by itself: Google's client library would be many times as large
// as the rest of the program. "?endpoint=" names another address of the service.
func openGCPKMS(ctx context.Context, text string) (Signer, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	name := u.Host + u.Path
	if !gcpKeyName.MatchString(name) {
		return nil, errors.New("want gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N")
	}
	service, err := newGCPService(ctx, u.Query().Get("endpoint"), name)
	if err != nil {
		return nil, err
	}
	var key struct{ PEM, Algorithm string }
	if err := service.ask(ctx, http.MethodGet, "/publicKey", nil, &key); err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	block, _ := pem.Decode([]byte(key.PEM))
	if key.Algorithm != gcpAlgorithm || block == nil {
		return nil, fmt.Errorf("the key's algorithm is %.40q: want %s", key.Algorithm, gcpAlgorithm)
	}
	return newRemote("Google Cloud KMS", block.Bytes, func(message []byte) ([]byte, error) {
		ctx, cancel := context.WithTimeout(context.Background(), cloudTimeout)
		defer cancel()
		var signed struct{ Signature []byte }
		err := service.ask(ctx, http.MethodPost, ":asymmetricSign", map[string][]byte{"data": message}, &signed)
		return signed.Signature, err
	})
}

// gcpService is one key at the service.
type gcpService struct {
	url  string
	http *http.Client
}

// newGCPService speaks for a key at an endpoint, "" for Google's.
func newGCPService(ctx context.Context, endpoint, name string) (*gcpService, error) {
	if endpoint == "" {
		endpoint = gcpEndpoint
	}
	// Tokens are fetched outside of a request's context, so that their client needs a bound of its own.
	ctx = context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, &http.Client{Timeout: cloudTimeout})
	credentials, err := google.FindDefaultCredentials(ctx, gcpScope)
	if err != nil {
		return nil, errors.New("no application default credentials were found")
	}
	return &gcpService{
		url:  endpoint + "/v1/" + name,
		http: &http.Client{Timeout: cloudTimeout, Transport: &oauth2.Transport{Source: credentials.TokenSource}},
	}, nil
}

func (s *gcpService) ask(ctx context.Context, method, path string, request, answer any) error {
	var body io.Reader
	if request != nil {
		data, err := json.Marshal(request)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return errors.New("the endpoint is not a URL")
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := s.http.Do(r)
	if err != nil {
		var failed *oauth2.RetrieveError
		if errors.As(err, &failed) { // its text holds the token service's answer
			return fmt.Errorf("no token: HTTP status %d", failed.Response.StatusCode)
		}
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxGCPAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		var problem struct {
			Error struct{ Status, Message string }
		}
		_ = json.Unmarshal(data, &problem) // an answer of another form has no more to say
		return fmt.Errorf("HTTP status %d: %.40s: %.200s", response.StatusCode, problem.Error.Status, problem.Error.Message)
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return errors.New("the answer is not the JSON that was expected")
	}
	return nil
}
