package signer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"
)

const (
	maxURIBytes = 4 << 10
	maxPINBytes = 256
)

// pkcs11URI is what a PKCS#11 URI names, RFC 7512. Absent attributes match everything.
type pkcs11URI struct {
	modulePath                         string
	token, manufacturer, model, serial string
	slotID                             *uint
	object, id                         string
	pin                                func() ([]byte, error) // reads it anew each time, so that it is not kept
}

// parsePKCS11URI reads a URI. Its errors name attributes, never values.
func parsePKCS11URI(uri string) (*pkcs11URI, error) {
	rest, found := strings.CutPrefix(uri, "pkcs11:")
	if !found || len(uri) > maxURIBytes {
		return nil, fmt.Errorf("want a PKCS#11 URI (RFC 7512) of at most %d bytes", maxURIBytes)
	}
	path, query, _ := strings.Cut(rest, "?")
	attributes, err := uriAttributes(path, ";")
	if err != nil {
		return nil, err
	}
	u := new(pkcs11URI)
	places := map[string]*string{
		"token": &u.token, "manufacturer": &u.manufacturer, "model": &u.model, "serial": &u.serial, "object": &u.object, "id": &u.id,
	}
	for name, value := range attributes {
		place, known := places[name]
		switch {
		case known:
			*place = value
		case name == "type" && value == "private":
		case name == "slot-id":
			number, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return nil, errors.New("slot-id is not a number")
			}
			id := uint(number)
			u.slotID = &id
		default:
			return nil, fmt.Errorf("the attribute %.40q is not known here, or has a value that cannot be", name)
		}
	}
	if attributes, err = uriAttributes(query, "&"); err != nil {
		return nil, err
	}
	for name, value := range attributes {
		switch name {
		case "module-path":
			u.modulePath = value
		case "pin-value":
			u.pin = func() ([]byte, error) { return []byte(value), nil }
		case "pin-source":
			path := strings.TrimPrefix(value, "file:")
			u.pin = func() ([]byte, error) { return readPIN(path) }
		default:
			return nil, fmt.Errorf("the query attribute %.40q is not known here", name)
		}
	}
	switch {
	case u.modulePath == "":
		return nil, errors.New("module-path is missing: the path of the token's PKCS#11 library")
	case attributes["pin-value"] != "" && attributes["pin-source"] != "":
		return nil, errors.New("pin-value and pin-source exclude each other")
	case u.object == "" && u.id == "":
		return nil, errors.New("object or id is missing: which key?")
	case u.token == "" && u.serial == "" && u.slotID == nil:
		return nil, errors.New("token, serial or slot-id is missing: where is the key?")
	}
	return u, nil
}

// uriAttributes splits "a=b;c=d" and decodes it. An attribute must not be repeated.
func uriAttributes(text, separator string) (map[string]string, error) {
	attributes := make(map[string]string)
	if text == "" {
		return attributes, nil
	}
	for part := range strings.SplitSeq(text, separator) {
		name, value, found := strings.Cut(part, "=")
		decoded, err := url.PathUnescape(value)
		_, repeated := attributes[name]
		switch {
		case !found || name == "":
			return nil, errors.New("each attribute must be of the form name=value")
		case err != nil:
			return nil, fmt.Errorf("the value of %.40q has a broken percent escape", name)
		case repeated:
			return nil, fmt.Errorf("the attribute %.40q is there twice", name)
		}
		attributes[name] = decoded
	}
	return attributes, nil
}

// readPIN reads the first line of a file that is for its owner alone.
func readPIN(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		var where *fs.PathError
		if errors.As(err, &where) {
			err = where.Err
		}
		return nil, fmt.Errorf("open pin-source: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, errors.New("pin-source is not a regular file")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("pin-source has mode %04o, so that others may use it: run chmod 600 on it", info.Mode().Perm())
	}
	pin, err := io.ReadAll(io.LimitReader(file, maxPINBytes+1))
	if err != nil {
		return nil, errors.New("pin-source cannot be read")
	}
	text, _, _ := strings.Cut(string(pin), "\n")
	if text = strings.TrimSuffix(text, "\r"); text == "" || len(text) > maxPINBytes {
		return nil, fmt.Errorf("pin-source must hold a PIN of 1 to %d bytes on its first line", maxPINBytes)
	}
	return []byte(text), nil
}
