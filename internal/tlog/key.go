package tlog

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/kapsel-dev/kapsel/internal/durable"
	"github.com/kapsel-dev/kapsel/internal/signer"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
)

const pemType = "PRIVATE KEY" // PKCS #8

// Key is the log's signing key. The private half may be in a file or in a module that signs (crypto.Signer).
//
// It stands behind a function, because package fmt reaches unexported fields by reflection.
type Key struct {
	signer func() crypto.Signer
	public ed25519.PublicKey
}

// NewKey makes a key of a signer, whose public key must be Ed25519.
func NewKey(signer crypto.Signer) (*Key, error) {
	public, ok := signer.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the log's key is a %T: want Ed25519", signer.Public())
	}
	return &Key{signer: func() crypto.Signer { return signer }, public: public}, nil
}

// OpenKey opens the key that a URL names: a file's path, with file: before it or not, which must exist, or a key in a
// module or a cloud (package signer).
func OpenKey(ctx context.Context, url string) (*Key, error) {
	if !signer.Is(url) {
		return readKeyFile(strings.TrimPrefix(url, "file:"))
	}
	opened, err := signer.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	return NewKey(opened)
}

// OpenKeyFile reads the key in a file (PEM, PKCS #8), and makes a new one if the file does not exist. It refuses a file
// that others than its owner may read or write. When several processes start at once, all get the same key.
func OpenKeyFile(path string) (*Key, error) {
	key, err := readKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make log key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode log key: %w", err)
	}
	err = durable.Create(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("write log key: %w", err)
	}
	return readKeyFile(path) // ours, or that of whoever was faster
}

func readKeyFile(path string) (*Key, error) {
	text, err := durable.ReadPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("read log key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("read log key: %s holds no PEM block %q", path, pemType)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read log key: %s holds no PKCS #8 key", path) // the parser's error could quote what it read
	}
	signer, ok := private.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read log key: %s holds a %T: want Ed25519", path, private)
	}
	return NewKey(signer)
}

// Public returns the public half.
func (k *Key) Public() ed25519.PublicKey { return k.public }

// Signer returns what signs.
func (k *Key) Signer() crypto.Signer { return k.signer() }

// VerifierKey returns the text by which verifiers know the key as that of the log with an origin.
func (k *Key) VerifierKey(origin string) (string, error) {
	return checkpoint.VerifierKey(origin, k.public)
}

// String keeps the private half out of logs.
func (k *Key) String() string { return fmt.Sprintf("Ed25519 key %x", []byte(k.public)) }

// Format does the same for every verb of package fmt.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }
