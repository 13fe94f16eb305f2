package delivery

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/singleflight"

	"github.com/kapsel-dev/kapsel/internal/route"
)

const (
	// fetchTimeout bounds one request for a token, whoever waits for it and for how long.
	fetchTimeout = 10 * time.Second
	// A token that ends within refreshBefore is asked for anew while it is still used; one that ends within tokenReserve is
	// not used any more: the request must arrive before its end.
	refreshBefore = time.Minute
	tokenReserve  = 5 * time.Second
	// defaultTokenLife is that of a token of which the endpoint does not say when it ends (RFC 6749 section 5.1).
	defaultTokenLife = 5 * time.Minute
	// failurePause is how long a failure is the answer to all who ask: 1,000 attempts must not ask a broken endpoint each.
	failurePause = time.Second
	// tokenIdle is after how long without use a token is forgotten.
	tokenIdle = time.Hour
)

// tokens gets, keeps and renews the access tokens of destinations. All who need the same one wait for one request.
type tokens struct {
	transport func(*route.Destination) http.RoundTripper
	ctx       context.Context // ends with the sender
	fetching  singleflight.Group

	mu    sync.Mutex
	kept  map[[sha256.Size]byte]*keptToken
	swept time.Time
}

type keptToken struct {
	header string // value of Authorization; "" while there is none
	ends   time.Time
	used   time.Time
	err    error // of the last request, until failedTill
	failed time.Time
}

// errToken says that no token was to be had.
type errToken struct{ err error }

func (e *errToken) Error() string { return "no access token: " + e.err.Error() }
func (e *errToken) Unwrap() error { return e.err }

// header is the value of Authorization for a request to the destination.
func (t *tokens) header(ctx context.Context, d *route.Destination) (string, error) {
	now := time.Now()
	key := d.ClientCredentials.Fingerprint
	t.mu.Lock()
	t.sweep(now)
	kept := t.kept[key]
	if kept == nil {
		kept = new(keptToken)
		t.kept[key] = kept
	}
	kept.used = now
	header, left, err := kept.header, kept.ends.Sub(now), kept.err
	if err != nil && now.Sub(kept.failed) > failurePause {
		err = nil
	}
	t.mu.Unlock()

	usable := header != "" && left > tokenReserve
	if usable && (left > refreshBefore || err != nil) {
		return header, nil
	}
	if err != nil {
		return "", &errToken{err}
	}
	fetched := t.fetching.DoChan(string(key[:]), func() (any, error) { return t.fetch(d) })
	if usable {
		return header, nil // the next one is on its way
	}
	select {
	case result := <-fetched:
		if result.Err != nil {
			return "", &errToken{result.Err}
		}
		return result.Val.(string), nil
	case <-ctx.Done():
		return "", &errToken{fmt.Errorf("wait for the token endpoint: %w", ctx.Err())}
	}
}

// reject forgets a token that the destination did not take.
func (t *tokens) reject(d *route.Destination, header string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if kept := t.kept[d.ClientCredentials.Fingerprint]; kept != nil && kept.header == header {
		kept.header = ""
	}
}

// fetch asks the token endpoint, through the same guard and proxy as deliveries go.
func (t *tokens) fetch(d *route.Destination) (header string, err error) {
	c := d.ClientCredentials
	ctx, cancel := context.WithTimeout(context.WithValue(t.ctx, connectTimeoutKey{}, fetchTimeout), fetchTimeout)
	defer cancel()
	client := &http.Client{
		Transport:     t.transport(d),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	config := clientcredentials.Config{
		ClientID: c.ClientID, ClientSecret: string(c.ClientSecret.Reveal()), TokenURL: c.TokenURL, Scopes: c.Scopes, AuthStyle: oauth2.AuthStyleInHeader,
	}
	if c.InBody {
		config.AuthStyle = oauth2.AuthStyleInParams
	}
	if c.Audience != "" {
		config.EndpointParams = url.Values{"audience": {c.Audience}}
	}
	token, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	err = tokenError(token, err)

	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.kept[c.Fingerprint]
	if kept == nil { // forgotten meanwhile
		kept = &keptToken{used: now}
		t.kept[c.Fingerprint] = kept
	}
	if err != nil {
		kept.err, kept.failed = err, now
		return "", err
	}
	kept.err, kept.header, kept.ends = nil, "Bearer "+token.AccessToken, token.Expiry
	if token.Expiry.IsZero() {
		kept.ends = now.Add(defaultTokenLife)
	}
	return kept.header, nil
}

// tokenError is what is told of an answer that gives no token. The body of an answer is not shown: it may repeat what was sent.
func tokenError(token *oauth2.Token, err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused):
		text := fmt.Sprintf("the token endpoint answered %d", refused.Response.StatusCode)
		if code := refused.ErrorCode; code != "" && len(code) <= 50 && strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") == "" { // RFC 6749 section 5.2
			text += fmt.Sprintf(", %q", code)
		}
		if refused.Response.StatusCode >= 300 && refused.Response.StatusCode <= 399 {
			text += ": redirects are not followed"
		}
		return errors.New(text)
	case err != nil:
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			return fmt.Errorf("token endpoint: %w", urlErr.Err)
		}
		return fmt.Errorf("token endpoint: %w", err)
	case token.AccessToken == "" || !httpguts.ValidHeaderFieldValue(token.AccessToken):
		return errors.New("the token endpoint gave no token that can be sent")
	case !strings.EqualFold(token.Type(), "Bearer"):
		return fmt.Errorf("the token endpoint gave a token of type %.50q: want Bearer", token.Type())
	}
	return nil
}

// sweep forgets what was not used for long, now and then. The caller holds the lock.
func (t *tokens) sweep(now time.Time) {
	if now.Sub(t.swept) < tokenIdle/10 {
		return
	}
	t.swept = now
	for key, kept := range t.kept {
		if now.Sub(kept.used) > tokenIdle {
			delete(t.kept, key)
		}
	}
}
