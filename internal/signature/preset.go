package signature

import "time"

// Preset describes how one provider signs its webhooks. It is data only: NewVerifier compiles
// it, Sign imitates the provider with it.
//
// A signature header holds one item, or a list of items split by Separator. Items that begin
// with Prefix carry a signature, the one that begins with TimestampPrefix carries the
// timestamp, and all others are skipped (older or newer schemes beside the one we know):
//
//	GitHub             sha256=<hex>                  Prefix "sha256="
//	Stripe             t=<s>,v1=<hex>,v0=<hex>       Separator ",", Prefix "v1=", TimestampPrefix "t="
//	Standard Webhooks  v1,<base64> v1,<base64>       Separator " ", Prefix "v1,"
type Preset struct {
	// Name is what configurations and the command line call it.
	Name string
	// Algorithm makes the signature. AlgorithmNone means that nothing is verified, and the
	// fields down to KeyForm are empty.
	Algorithm Algorithm
	// Header carries the signature.
	Header string
	// Separator splits the header into items; empty means that the header is one item.
	Separator string
	// Prefix begins an item that is a signature; empty means that every item is one.
	Prefix string
	// Encoding of the signature after the prefix.
	Encoding Encoding
	// Content is the signed text as a template over {id}, {timestamp} and {body}. {id} is the
	// value of DeliveryID.Header, {timestamp} the timestamp as it was sent.
	Content string
	// TimestampHeader carries the timestamp in Unix seconds, when it has its own header.
	TimestampHeader string
	// TimestampPrefix begins the item of Header that is the timestamp, when it stands there.
	TimestampPrefix string
	// Tolerance is how far the timestamp may be from now, both ways.
	Tolerance time.Duration
	// KeyForm says how the key is made from the secret.
	KeyForm KeyForm
	// DeliveryID is where the provider's own id of the delivery stands. The same delivery sent
	// again bears the same id.
	DeliveryID Field
	// EventType is where the kind of event stands.
	EventType Field
}

// Field is a place in a request: a header, or a member of a JSON body. At most one of the two
// is set; neither means that the provider has no such field.
type Field struct {
	// Header is the header's name.
	Header string
	// JSON is a dotted path of object members, such as "data.object.id".
	JSON string
}

// Algorithm makes a signature from a key and the signed content.
type Algorithm uint8

const (
	AlgorithmNone Algorithm = iota
	HMACSHA1
	HMACSHA256
	HMACSHA512
)

// Encoding turns the bytes of a signature into header text.
type Encoding uint8

const (
	// Hex is accepted in either case and sent in lower case.
	Hex Encoding = iota
	// Base64 is the standard alphabet with padding, RFC 4648 section 4.
	Base64
)

// KeyForm is how a key is made from the secret that an operator pastes.
type KeyForm uint8

const (
	// KeyRaw takes the secret's bytes as they are.
	KeyRaw KeyForm = iota
	// KeyStandardWebhooks takes base64 with or without the prefix whsec_ as an HMAC key, and
	// base64 after whpk_ as an Ed25519 public key, whose signatures are items that begin
	// with "v1a,".
	KeyStandardWebhooks
)
