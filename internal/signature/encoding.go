package signature

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// strictBase64 refuses set bits beyond the last byte, so that a signature has one spelling.
var strictBase64 = base64.StdEncoding.Strict()

func (e Encoding) String() string {
	switch e {
	case Hex:
		return "hex"
	case Base64:
		return "base64"
	case Plain:
		return "plain text"
	}
	return fmt.Sprintf("encoding %d", uint8(e))
}

func (e Encoding) encodedLen(n int) int {
	if e == Base64 {
		return base64.StdEncoding.EncodedLen(n)
	}
	return hex.EncodedLen(n)
}

func (e Encoding) appendEncode(dst, raw []byte) []byte {
	if e == Base64 {
		return base64.StdEncoding.AppendEncode(dst, raw)
	}
	return hex.AppendEncode(dst, raw)
}

// decode decodes text into dst, and reports whether it held exactly len(dst) bytes.
func (e Encoding) decode(dst []byte, text string) bool {
	return len(text) == e.encodedLen(len(dst)) && e.decodeSome(dst, text) == len(dst)
}

// decodeSome decodes text into dst, and returns how many bytes it held, 0 if it is malformed or longer than dst.
func (e Encoding) decodeSome(dst []byte, text string) int {
	if len(text) > maxEncodedBytes {
		return 0
	}
	var src [maxEncodedBytes]byte
	n := copy(src[:], text)
	var raw [maxEncodedBytes]byte
	var got int
	var err error
	if e == Base64 {
		got, err = strictBase64.Decode(raw[:], src[:n])
	} else {
		got, err = hex.Decode(raw[:], src[:n])
	}
	if err != nil || got > len(dst) {
		return 0
	}
	return copy(dst, raw[:got])
}
