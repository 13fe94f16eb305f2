package signature

import "time"

// Preset describes how one provider signs its webhooks. It is data only: NewVerifier compiles
// it, SignRequest imitates the provider with it.
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
	// Title is what people call whoever sends the webhooks.
	Title string
	// Documentation is the URL of the page that says how they are signed: the source of what stands here.
	Documentation string
	// Algorithm makes the signature. AlgorithmNone means that nothing is verified, and the
	// fields down to KeyForm are empty.
	Algorithm Algorithm
	// Header carries the signature.
	Header string
	// SignatureJSON is the path of the signature in the body, instead of a Header.
	SignatureJSON string
	// OnlyItemJSON is the path of something that the body must not hold, because the signature
	// would not cover it.
	OnlyItemJSON string
	// Separator splits the header into items; empty means that the header is one item.
	Separator string
	// Prefix begins an item that is a signature; empty means that every item is one.
	Prefix string
	// Encoding of the signature after the prefix.
	Encoding Encoding
	// Content is the signed text, a template over
	//
	//	{id}         the value of DeliveryID.Header
	//	{timestamp}  the timestamp as it was sent
	//	{method}     the request's method
	//	{url}        the URL that the provider was given, with the request's query
	//	{body}       the body
	//	{form}       the body's form parameters, sorted: name, value, name, value
	//	{json:path}  the text at a path of the body, nothing if there is none
	Content string
	// DecodedURL lists characters that stand in {url} decoded where the URL has them percent-encoded.
	DecodedURL string
	// BodyDigestQuery is a query parameter with the body's SHA-256 in hex. When the URL has it,
	// {form} is empty: it covers a body that is no form.
	BodyDigestQuery string
	// TimestampHeader carries the timestamp, when it has its own header.
	TimestampHeader string
	// TimestampPrefix begins the item of Header that is the timestamp, when it stands there.
	TimestampPrefix string
	// TimestampJSON is the path of a timestamp in the body, which is signed as part of it.
	TimestampJSON string
	// TimestampUnit is what the timestamp counts since 1970. Zero: seconds; else milliseconds.
	TimestampUnit time.Duration
	// Tolerance is how far the timestamp may be from now, both ways.
	Tolerance time.Duration
	// KeyForm says how the key is made from the secret.
	KeyForm KeyForm
	// ReceiverChooses says that whoever receives chooses the secret and tells the provider, so
	// that one can be generated here.
	ReceiverChooses bool
	// DeliveryID is where the provider's own id of the delivery stands. The same delivery sent
	// again bears the same id.
	DeliveryID Field
	// RepeatsBody says that a delivery without id is known by its body: sent again it has the same
	// bytes, and two deliveries never have.
	RepeatsBody bool
	// EventType is where the kind of event stands.
	EventType Field
	// Handshake is how the provider makes sure of an endpoint before it sends events there.
	Handshake Handshake
	// Acknowledgement is the status by which the provider asks to be told that a webhook was taken in.
	// Zero, where any 2xx will do: 202.
	Acknowledgement int
}

// Field is a place in a request: a header, or members of a JSON body. At most one of the two
// is set; neither means that the provider has no such field.
type Field struct {
	// Header is the header's name.
	Header string
	// JSON holds dotted paths, such as "data.object.id". The texts of several are joined by colons,
	// and all must be there.
	JSON []string
}

// Algorithm makes a signature from a key and the signed content.
type Algorithm uint8

// The algorithms.
const (
	AlgorithmNone Algorithm = iota
	HMACSHA1
	HMACSHA256
	HMACSHA512
	// Ed25519 is RFC 8032's, with a public key.
	Ed25519
	// ECDSAP256 is ECDSA on P-256 with SHA-256, the signature in DER (RFC 3279), with a public key.
	ECDSAP256
	// Token is no signature: the secret itself is sent. It covers no content.
	Token
)

// Encoding turns the bytes of a signature into header text.
type Encoding uint8

// The encodings.
const (
	// Hex is accepted in either case and sent in lower case.
	Hex Encoding = iota
	// Base64 is the standard alphabet with padding, RFC 4648 section 4.
	Base64
	// Plain is for tokens.
	Plain
)

// KeyForm is how a key is made from the secret that an operator pastes.
type KeyForm uint8

// The forms of keys.
const (
	// KeyRaw takes the secret's bytes as they are.
	KeyRaw KeyForm = iota
	// KeyStandardWebhooks takes base64 with or without the prefix whsec_ as an HMAC key, and
	// base64 after whpk_ as an Ed25519 public key, whose signatures are items that begin
	// with "v1a,".
	KeyStandardWebhooks
	// KeyHex takes hex as an HMAC key.
	KeyHex
	// KeyEd25519 takes a public key of 32 bytes in hex.
	KeyEd25519
	// KeyECDSA takes a public key in PEM, or the base64 of its DER form (X.509 SubjectPublicKeyInfo).
	KeyECDSA
	// KeyBasicAuth takes user:password, whose base64 is the token (RFC 7617).
	KeyBasicAuth
	// KeyVerifyToken takes the secret's bytes as they are, except that a secret which begins with
	// "verify_token:" is not a key, but what a handshake must show.
	KeyVerifyToken
)

// NewSecret returns a new random secret for a preset whose ReceiverChooses.
func (p Preset) NewSecret() string {
	if p.KeyForm == KeyBasicAuth {
		return "kapsel:" + NewSecret()
	}
	return NewSecret()
}

// Timed reports whether webhooks of this preset carry a timestamp that is checked.
func (p Preset) Timed() bool {
	return p.TimestampHeader != "" || p.TimestampPrefix != "" || p.TimestampJSON != ""
}
