package server

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectgzip"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// What a message becomes when it is decoded: an empty element takes two bytes on the wire and a hundred in memory, and a
// compressed message a thousandth of itself.
const (
	// maxParts of a message. The largest batch has some 800,000: 1000 webhooks with 256 headers each, as JSON.
	maxParts = 1 << 20
	// partBytes is what a part takes, about.
	partBytes = 128
	// maxPartNesting is deeper than messages of the contract are.
	maxPartNesting = 32
	// maxDecompressing at once: what they make is not counted until it is there.
	maxDecompressing = 4
)

// messageForms are the codecs and the compression of the API, by which no message grows beyond bounds.
func messageForms() []connecthttp.Option {
	return []connecthttp.Option{
		connecthttp.WithCodecs(
			boundedCodec{connectproto.NewBinaryCodec(), func(data []byte, m protoreflect.Message) int { return wireParts(data, m.Descriptor(), 0) }},
			boundedCodec{connectproto.NewJSONCodec(), func(data []byte, _ protoreflect.Message) int { return jsonParts(data) }},
		),
		connecthttp.WithCompressors(boundedCompressor{connectgzip.New(), make(chan struct{}, maxDecompressing)}),
	}
}

// boundedCodec decodes messages of a bounded number of parts, and has what they take counted first.
type boundedCodec struct {
	connect.StableCodec
	parts func([]byte, protoreflect.Message) int
}

// UnmarshalRead implements connect.Codec.
func (c boundedCodec) UnmarshalRead(ctx context.Context, from io.Reader, into any) error {
	buffer, ready := from.(*bytes.Buffer)
	if !ready {
		buffer = new(bytes.Buffer)
		if _, err := buffer.ReadFrom(from); err != nil {
			return err
		}
	}
	if message, ok := into.(proto.Message); ok {
		parts := c.parts(buffer.Bytes(), message.ProtoReflect())
		if parts > maxParts {
			return fmt.Errorf("the request has over %d parts (messages, fields and elements of lists): send less at once", maxParts)
		}
		if !holdMore(ctx, int64(buffer.Len())+int64(parts)*partBytes) {
			return errNoMemory
		}
	}
	return c.StableCodec.UnmarshalRead(ctx, buffer, into)
}

// wireParts counts the messages and the elements of lists in an encoded message, some more than maxParts at most.
func wireParts(data []byte, of protoreflect.MessageDescriptor, depth int) (n int) {
	for len(data) > 0 && n <= maxParts {
		number, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return n // the decoder says what is wrong
		}
		data = data[size:]
		if size = protowire.ConsumeFieldValue(number, kind, data); size < 0 {
			return n
		}
		value := data[:size]
		data = data[size:]
		field := of.Fields().ByNumber(number)
		if field == nil {
			continue // kept as it is
		}
		inner := value
		if kind == protowire.BytesType {
			inner, _ = protowire.ConsumeBytes(value)
		}
		switch {
		case field.Message() != nil && kind == protowire.BytesType && depth < maxPartNesting:
			n += 1 + wireParts(inner, field.Message(), depth+1)
		case field.Message() != nil, field.IsList() && field.IsPacked() && kind == protowire.BytesType:
			n += 1 + len(inner)
		case field.IsList():
			n++
		}
	}
	return n
}

// jsonParts counts what begins an object, a list, or another member or element.
func jsonParts(data []byte) (n int) {
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = endOfString(data, i+1)
		case '{', '[', ',':
			n++
		}
	}
	return n
}

// endOfString is where the string that begins at from has its closing quotation mark, or where the data ends.
func endOfString(data []byte, from int) int {
	for {
		length := bytes.IndexByte(data[from:], '"')
		if length < 0 {
			return len(data)
		}
		text := data[from : from+length]
		from += length
		if backslashes := len(text) - len(bytes.TrimRight(text, `\`)); backslashes%2 == 0 {
			return from
		}
		from++
	}
}

// boundedCompressor decompresses a few messages at a time. They are all there: nobody waits for a client.
type boundedCompressor struct {
	connect.Compressor
	slots chan struct{}
}

// Decompress implements connect.Compressor.
func (c boundedCompressor) Decompress(from io.Reader) (io.ReadCloser, error) {
	c.slots <- struct{}{}
	reader, err := c.Compressor.Decompress(from)
	if err != nil {
		<-c.slots
		return nil, err
	}
	return slotReader{reader, c.slots}, nil
}

type slotReader struct {
	io.ReadCloser
	slots chan struct{}
}

func (r slotReader) Close() error {
	defer func() { <-r.slots }()
	return r.ReadCloser.Close()
}
