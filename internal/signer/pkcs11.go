//go:build pkcs11 && cgo

package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"
)

// Numbers of PKCS#11 3.0 that the binding does not name.
const (
	ckkECEdwards = 0x40
	ckmEdDSA     = 0x1057
)

// token is a key in a PKCS#11 token, with one session: signatures are made one at a time. A session that was lost, since
// the module was restarted or the token taken out and put back, is opened again at the next signature.
type token struct {
	uri    *pkcs11URI
	module *pkcs11.Ctx
	public ed25519.PublicKey

	mu      sync.Mutex
	session pkcs11.SessionHandle
	key     pkcs11.ObjectHandle
	open    bool
}

func openPKCS11(_ context.Context, text string) (Signer, error) {
	uri, err := parsePKCS11URI(text)
	if err != nil {
		return nil, err
	}
	module := pkcs11.New(uri.modulePath)
	if module == nil {
		return nil, errors.New("module-path is not a PKCS#11 library that can be loaded")
	}
	if err := module.Initialize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		module.Destroy()
		return nil, fmt.Errorf("initialize module: %w", err)
	}
	t := &token{uri: uri, module: module}
	if err := t.login(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// login opens a session and finds the key in it.
func (t *token) login() error {
	slot, err := t.slot()
	if err != nil {
		return err
	}
	if t.session, err = t.module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	t.open = true
	if t.uri.pin != nil {
		pin, err := t.uri.pin()
		if err != nil {
			return err
		}
		err = t.module.Login(t.session, pkcs11.CKU_USER, string(pin))
		clear(pin)
		if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
			return fmt.Errorf("log in: %w", err)
		}
	}
	if t.key, err = t.find(pkcs11.CKO_PRIVATE_KEY); err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	object, err := t.find(pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	attributes, err := t.module.GetAttributeValue(t.session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil || len(attributes) != 1 {
		return fmt.Errorf("read public key: %w", err)
	}
	public, err := edwardsPoint(attributes[0].Value)
	if err != nil {
		return err
	}
	if t.public != nil && !t.public.Equal(public) {
		return errors.New("the token holds another key than before")
	}
	t.public = public
	return nil
}

// slot finds the one token that the URI means.
func (t *token) slot() (uint, error) {
	slots, err := t.module.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("list slots: %w", err)
	}
	matches := func(want, have string) bool { return want == "" || want == strings.TrimRight(have, " \x00") }
	var found []uint
	for _, slot := range slots {
		info, err := t.module.GetTokenInfo(slot)
		if err == nil && (t.uri.slotID == nil || *t.uri.slotID == slot) && matches(t.uri.token, info.Label) &&
			matches(t.uri.manufacturer, info.ManufacturerID) && matches(t.uri.model, info.Model) && matches(t.uri.serial, info.SerialNumber) {
			found = append(found, slot)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d of %d tokens match: want just one", len(found), len(slots))
	}
	return found[0], nil
}

// find returns the one object of a class that the URI means.
func (t *token) find(class uint) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, uint(ckkECEdwards)),
	}
	if t.uri.object != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, t.uri.object))
	}
	if t.uri.id != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(t.uri.id)))
	}
	if err := t.module.FindObjectsInit(t.session, template); err != nil {
		return 0, fmt.Errorf("look for it: %w", err)
	}
	objects, _, err := t.module.FindObjects(t.session, 2)
	if err = errors.Join(err, t.module.FindObjectsFinal(t.session)); err != nil {
		return 0, fmt.Errorf("look for it: %w", err)
	}
	if len(objects) != 1 {
		return 0, fmt.Errorf("want just one Ed25519 key of this name, there are %d", len(objects))
	}
	return objects[0], nil
}

// edwardsPoint reads CKA_EC_POINT, which modules give as it is or as an OCTET STRING.
func edwardsPoint(value []byte) (ed25519.PublicKey, error) {
	if len(value) != ed25519.PublicKeySize {
		var inner []byte
		if rest, err := asn1.Unmarshal(value, &inner); err != nil || len(rest) > 0 || len(inner) != ed25519.PublicKeySize {
			return nil, errors.New("the token's public key is not an Ed25519 point")
		}
		value = inner
	}
	return bytes.Clone(value), nil
}

func (t *token) Public() crypto.PublicKey { return t.public }

// Sign signs a message by CKM_EDDSA.
func (t *token) Sign(_ io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	if options.HashFunc() != crypto.Hash(0) {
		return nil, errors.New("sign in token: Ed25519 signs messages, not digests")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	signature, err := t.sign(message)
	if err == nil {
		return signature, nil
	}
	t.close()
	if again := t.login(); again != nil {
		return nil, fmt.Errorf("sign in token: %w; and it could not be opened again: %w", err, again)
	}
	if signature, err = t.sign(message); err != nil {
		return nil, fmt.Errorf("sign in token: %w", err)
	}
	return signature, nil
}

func (t *token) sign(message []byte) ([]byte, error) {
	if !t.open {
		return nil, errors.New("no session")
	}
	if err := t.module.SignInit(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(ckmEdDSA, nil)}, t.key); err != nil {
		return nil, err
	}
	return t.module.Sign(t.session, message)
}

func (t *token) close() {
	if t.open {
		t.open = false
		_ = t.module.CloseSession(t.session) // it may be gone already
	}
}

// Close ends the session. The module stays initialized, since it is the process's and others may use it.
func (t *token) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.close()
	return nil
}

// String names the key without the URI, which may hold a PIN.
func (t *token) String() string { return fmt.Sprintf("PKCS#11 key %x", []byte(t.public)) }

// Format makes every verb of package fmt print that.
func (t *token) Format(f fmt.State, _ rune) { io.WriteString(f, t.String()) }
