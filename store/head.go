package store

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// schema is the version of what a file holds. A newer minor only adds buckets
// and fields; a newer major is for newer releases only.
type schema struct{ Major, Minor uint8 }

// currentSchema is what this release writes.
func currentSchema() schema { return schema{Major: 1, Minor: 0} }

func (v schema) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Names in every file.
const (
	ownBucket = "postern" // the head and the root; the rest of the file is the caller's
	headKey   = "head"
	rootKey   = "root"
	product   = "postern"
	fileIDLen = 16
)

// head says in plain words what a file is. It is read before any key is at
// hand; the sealed root proves it.
type head struct {
	Product string `json:"product"`
	Kind    string `json:"kind"` // "identity", "cache", "authority"
	Major   uint8  `json:"major"`
	Minor   uint8  `json:"minor"`
	File    string `json:"file"` // 32 hex digits, made with the file
	Key     string `json:"key"`  // Key.ID of what seals it
	Sum     string `json:"sum"`  // SHA-256 of the head with an empty Sum: damage must not look like a newer schema
}

func newHead(kind string, v schema, k *Key) (head, error) {
	id := make([]byte, fileIDLen)
	if _, err := rand.Read(id); err != nil {
		return head{}, err
	}
	return head{
		Product: product, Kind: kind, Major: v.Major, Minor: v.Minor,
		File: hex.EncodeToString(id), Key: k.id,
	}, nil
}

func (h head) schema() schema { return schema{h.Major, h.Minor} }

func (h head) encode() ([]byte, error) {
	h.Sum = ""
	plain, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(plain)
	h.Sum = hex.EncodeToString(sum[:])
	return json.Marshal(h)
}

// decodeHead reads a head. Errors wrap ErrForeign, ErrDamaged or ErrNewer.
func decodeHead(content []byte, mine schema) (head, error) {
	var h head
	if err := json.Unmarshal(content, &h); err != nil || !sumCovers(content, h.Sum) {
		return head{}, fmt.Errorf("head: %w", ErrDamaged)
	}
	if h.Product != product {
		return head{}, ErrForeign
	}
	if h.Major > mine.Major {
		return h, newer(h.schema(), mine)
	}
	if raw, err := hex.DecodeString(h.File); err != nil || len(raw) != fileIDLen {
		return head{}, fmt.Errorf("head: %w", ErrDamaged)
	}
	return h, nil
}

// sumCovers reports whether sum is the SHA-256 of content without the sum
// itself. The text counts as it stands, so that fields of a newer release,
// unknown here, are covered too.
func sumCovers(content []byte, sum string) bool {
	if len(sum) != 2*sha256.Size {
		return false
	}
	got := sha256.Sum256(bytes.Replace(content, []byte(sum), nil, 1))
	return hex.EncodeToString(got[:]) == sum
}

func newer(file, mine schema) error {
	return fmt.Errorf("schema %s, this release reads up to %d.x: %w", file, mine.Major, ErrNewer)
}

func (h head) id() []byte {
	raw, _ := hex.DecodeString(h.File) // checked by decodeHead
	return raw
}

// root is the sum of a file at one commit, sealed under that commit's generation.
type root struct {
	generation uint64 // the first is 1; it stands in the envelope
	count      uint64 // values
	set        digest
}

const rootLen = 8 + sha256.Size

func (r root) encode() []byte {
	out := make([]byte, 0, rootLen)
	out = binary.BigEndian.AppendUint64(out, r.count)
	return append(out, r.set[:]...)
}

func decodeRoot(plain []byte, generation uint64) (root, error) {
	if len(plain) != rootLen {
		return root{}, fmt.Errorf("root: %w", ErrDamaged)
	}
	r := root{generation: generation, count: binary.BigEndian.Uint64(plain)}
	copy(r.set[:], plain[8:])
	return r, nil
}
