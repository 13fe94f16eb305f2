package verify

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// Rotation is a log's hand-over from one key to the next, which is a leaf of the log. Both keys have signed it: the old one
// says who comes after it, and the new one that it is there.
type Rotation struct {
	// Origin is the log's name.
	Origin string
	// OldKey and NewKey are verifier keys, "<origin>+<key id>+<base64>".
	OldKey, NewKey string
	// RotatedAt is when the new key came into use.
	RotatedAt time.Time
	// OldKeyRetiresAt is when the old one was to stop. Until then each head is signed by both.
	OldKeyRetiresAt time.Time
}

// RotationStatement returns what both keys sign: lines of text, of which none can be one of a checkpoint.
func RotationStatement(r Rotation) []byte {
	return fmt.Appendf(nil, "kapsel-key-rotation/v1\n%s\n%s\n%s\n%d\n%d\n", r.Origin, r.OldKey, r.NewKey, r.RotatedAt.Unix(), r.OldKeyRetiresAt.Unix())
}

// OpenRotation reads the leaf of a hand-over and checks both signatures. That is no reason to trust the old key; see
// FollowRotations.
func OpenRotation(leaf []byte) (*Rotation, error) {
	message, err := decodeLeaf(leaf)
	if err != nil {
		return nil, err
	}
	rotation := message.GetKeyRotation()
	if rotation == nil {
		return nil, errors.New("the leaf is not a hand-over of keys")
	}
	return openRotation(rotation)
}

func openRotation(m *leafv1.KeyRotation) (*Rotation, error) {
	var keys [2]key
	for i, public := range [][]byte{m.GetOldPublicKey(), m.GetNewPublicKey()} {
		if len(public) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("the hand-over names a key of %d bytes: want %d", len(public), ed25519.PublicKeySize)
		}
		keys[i] = key{name: m.GetOrigin(), kind: typeEd25519, public: public}
		if _, err := parseKey(keys[i].text()); err != nil {
			return nil, fmt.Errorf("the hand-over names a key that %w", err)
		}
	}
	for _, at := range []int64{m.GetRotatedAt().GetSeconds(), m.GetOldKeyRetiresAt().GetSeconds()} {
		if at <= 0 || at > maxSeconds {
			return nil, errors.New("the hand-over has no possible time")
		}
	}
	switch {
	case bytes.Equal(keys[0].public, keys[1].public):
		return nil, errors.New("the hand-over is to the same key")
	case m.GetRotatedAt().GetNanos() != 0 || m.GetOldKeyRetiresAt().GetNanos() != 0:
		return nil, errors.New("the hand-over's times are not whole seconds")
	}
	r := &Rotation{
		Origin: m.GetOrigin(), OldKey: keys[0].text(), NewKey: keys[1].text(),
		RotatedAt: m.GetRotatedAt().AsTime(), OldKeyRetiresAt: m.GetOldKeyRetiresAt().AsTime(),
	}
	statement := RotationStatement(*r)
	for i, signature := range [][]byte{m.GetOldSignature(), m.GetNewSignature()} {
		if !ed25519.Verify(keys[i].public, statement, signature) {
			return nil, fmt.Errorf("the hand-over's signature of the %s key is wrong", []string{"old", "new"}[i])
		}
	}
	return r, nil
}

// FollowRotations returns the trusted keys, and after them those that they lead to, by the leaves of hand-overs of their log
// in the order of the log (/.well-known/kapsel-log.json, or GetLog). A hand-over from a key that is not trusted adds
// nothing. A leaf that is no right hand-over is an error.
//
// Whoever has stolen a trusted key can sign a hand-over too. So follow hand-overs only under a head that covers their
// leaves and that you would believe, such as one that witnesses have cosigned; and take a key that changed without notice
// up with its operator.
func FollowRotations(trusted []string, leaves [][]byte) ([]string, error) {
	if _, err := parseKeys(trusted); err != nil {
		return nil, fmt.Errorf("trusted %w", err)
	}
	keys := slices.Clone(trusted)
	for i, leaf := range leaves {
		r, err := OpenRotation(leaf)
		if err != nil {
			return nil, fmt.Errorf("hand-over %d: %w", i+1, err)
		}
		if slices.Contains(keys, r.OldKey) && !slices.Contains(keys, r.NewKey) {
			keys = append(keys, r.NewKey)
		}
	}
	return keys, nil
}

// rotationText is a hand-over for people, frozen like attemptText.
type rotationText struct {
	Kind            string `json:"kind"`
	Origin          string `json:"origin"`
	OldKey          string `json:"old_key"`
	NewKey          string `json:"new_key"`
	RotatedAt       string `json:"rotated_at"`
	OldKeyRetiresAt string `json:"old_key_retires_at"`
	OldSignature    string `json:"old_signature"`
	NewSignature    string `json:"new_signature"`
	Nonce           string `json:"nonce"`
}

func (w *writer) rotation(m *leafv1.KeyRotation, nonce string) rotationText {
	r, err := openRotation(m)
	if err != nil {
		w.fail("key rotation: %v", err)
		return rotationText{}
	}
	return rotationText{
		Kind: "key_rotation", Origin: r.Origin, OldKey: r.OldKey, NewKey: r.NewKey,
		RotatedAt: r.RotatedAt.Format(timeLayout), OldKeyRetiresAt: r.OldKeyRetiresAt.Format(timeLayout),
		OldSignature: hex.EncodeToString(m.GetOldSignature()), NewSignature: hex.EncodeToString(m.GetNewSignature()), Nonce: nonce,
	}
}

func (t *textWriter) rotation(m *leafv1.KeyRotation) {
	r, err := openRotation(m)
	if err != nil {
		return // it was described before, so it is right
	}
	t.line("\nThe log's key was handed over to another one")
	t.row("When", clock(r.RotatedAt))
	t.row("Old key", plain(r.OldKey))
	t.row("Retires", clock(r.OldKeyRetiresAt))
	t.row("New key", plain(r.NewKey))
}
