package verify_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// misspeltLeaves are such as protobuf libraries read differently: one refuses them, or has a field for unknown, and another one takes them.
func misspeltLeaves(t *testing.T) map[string][]byte {
	leaf := marshal(t, attemptLeaf(testAttempt()))
	number := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 2)
	hash := protowire.AppendBytes(protowire.AppendTag(nil, 8, protowire.BytesType), filled(32, 7))
	attempt := marshal(t, attemptLeaf(testAttempt()))[len(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), filled(16, 0))):]
	_, n := protowire.ConsumeVarint(attempt[1:])
	attempt = attempt[1+n:]
	// with has other bytes in the place of an attempt's field.
	with := func(old, put []byte) []byte {
		inside := bytes.Replace(attempt, old, put, 1)
		if bytes.Equal(inside, attempt) {
			t.Fatalf("the attempt has no %x", old)
		}
		return of(t, inside, len(inside))
	}
	erasure := func(indexes []byte) []byte {
		e := testErasure()
		e.LeafIndexes = nil
		data, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		nonce := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), filled(16, 0))
		return protowire.AppendBytes(protowire.AppendTag(nonce, 4, protowire.BytesType), append(indexes, data...))
	}
	return map[string][]byte{
		"number as fixed32":               with(number, append(protowire.AppendTag(nil, 7, protowire.Fixed32Type), 2)),
		"number as bytes":                 with(number, append(protowire.AppendTag(nil, 7, protowire.BytesType), 2)),
		"number as a group":               with(number, append(protowire.AppendTag(nil, 7, protowire.StartGroupType), 2)),
		"hash as a number":                with(hash, append(protowire.AppendTag(nil, 8, protowire.VarintType), hash[1:]...)),
		"number in two bytes too many":    with(number, append(number[:1:1], 0x82, 0x80, 0)),
		"number in eleven bytes":          with(number, append(number[:1:1], 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0)),
		"number beyond 64 bits":           with(number, append(number[:1:1], 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2)),
		"long tag":                        with(number, []byte{7<<3 | 0x80, 0x80, 0, 2}),
		"tag of seven bytes":              with(number, []byte{7<<3 | 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 2}),
		"tag beyond 32 bits":              with(number, []byte{7<<3 | 0x80, 0x80, 0x80, 0x80, 0x10, 2}),
		"long length":                     with(hash, append(append(hash[:1:1], 0xa0, 0), hash[2:]...)),
		"length beyond 32 bits":           with(hash, append(append(hash[:1:1], 0xa0, 0x80, 0x80, 0x80, 0x10), hash[2:]...)),
		"field beyond its message's end":  of(t, attempt, len(attempt)-3),
		"message beyond the leaf's end":   of(t, attempt, len(attempt)+1),
		"time beyond its message's end":   with([]byte{11<<3 | 2, 6, 8}, []byte{11<<3 | 2, 5, 8}),
		"end of a group":                  append(bytes.Clone(leaf), 12),
		"field 0":                         append(bytes.Clone(leaf), 0, 0),
		"unknown field that is replaced":  of(t, append(bytes.Clone(attempt), 0xf8, 0x7f, 1), -1, marshal(t, &leafv1.Leaf{Kind: &leafv1.Leaf_Erasure{Erasure: testErasure()}})...),
		"index in two bytes too many":     erasure([]byte{4<<3 | 2, 3, 0x82, 0x80, 0}),
		"indexes beyond their list's end": erasure([]byte{4<<3 | 2, 1, 0x82, 1}),
		"indexes as fixed64":              erasure([]byte{4<<3 | 1, 2, 0, 0, 0, 0, 0, 0, 0}),
	}
}

// of is a leaf of an attempt's bytes, of which length is said to be the size; -1: the right one.
func of(t *testing.T, attempt []byte, length int, more ...byte) []byte {
	t.Helper()
	if length < 0 {
		length = len(attempt)
	}
	leaf := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), filled(16, 0))
	leaf = protowire.AppendVarint(protowire.AppendTag(leaf, 2, protowire.BytesType), uint64(length))
	return append(append(leaf, attempt...), more...)
}

// unusualLeaves are spelled as no library writes them, and all read them in one way.
func unusualLeaves(t *testing.T) map[string][]byte {
	e := testErasure()
	e.LeafIndexes = nil
	erasure, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	nonce := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), filled(16, 0))
	attempt := marshal(t, attemptLeaf(testAttempt()))
	late := marshal(t, &leafv1.Leaf{Kind: &leafv1.Leaf_Attempt{Attempt: &leafv1.Attempt{Number: 3, Late: true}}})
	return map[string][]byte{
		"list that is not packed":     protowire.AppendBytes(protowire.AppendTag(nonce, 4, protowire.BytesType), append([]byte{4 << 3, 1, 4 << 3, 0x81, 1}, erasure...)),
		"list in two parts":           protowire.AppendBytes(protowire.AppendTag(nonce, 4, protowire.BytesType), append([]byte{4<<3 | 2, 1, 1, 4 << 3, 2, 4<<3 | 2, 0}, erasure...)),
		"attempt in two parts":        append(bytes.Clone(attempt), late...),
		"attempt, replaced":           append(bytes.Clone(attempt), marshal(t, &leafv1.Leaf{Kind: &leafv1.Leaf_Erasure{Erasure: testErasure()}})...),
		"truth of many bits":          append(bytes.Clone(attempt), 2<<3|2, 12, 0xb8, 1, 0x80, 0x80, 0x80, 0x80, 0x10, 0xb8, 1, 0x80, 0x80, 1),
		"number of more than 32 bits": append(bytes.Clone(attempt), 2<<3|2, 6, 7<<3, 0x85, 0x80, 0x80, 0x80, 0x10),
	}
}
