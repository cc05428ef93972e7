package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
)

// The envelope of a value, version 1:
//
//	0      1  version
//	1      2  schema, major and minor, of the release that sealed it
//	3      8  generation of the file when it was sealed, big endian
//	11    12  nonce
//	23     n  AES-256-GCM ciphertext and tag
//
// The associated data are the first 11 bytes, bucket and key; the cipher's key
// belongs to this one file. A value that was moved to another key, bucket or
// file, or given another generation, does not open.
const (
	envelopeVersion = 1
	headerLen       = 11
	nonceLen        = 12
	envelopeLeast   = headerLen + nonceLen + 16
)

// sealer seals and opens the values of one file. Safe for concurrent use.
type sealer struct {
	aead cipher.AEAD
	mac  []byte
}

func newSealer(k *Key, h head) (*sealer, error) {
	enc, err := k.derive(h.id(), "values of "+h.Kind, 32)
	if err != nil {
		return nil, err
	}
	defer clear(enc)
	mac, err := k.derive(h.id(), "set of "+h.Kind, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(enc)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead: aead, mac: mac}, err
}

// seal wraps plain for its place.
func (s *sealer) seal(p place, v schema, generation uint64, plain []byte) ([]byte, error) {
	out := make([]byte, headerLen+nonceLen, envelopeLeast+len(plain))
	out[0], out[1], out[2] = envelopeVersion, v.Major, v.Minor
	binary.BigEndian.PutUint64(out[3:], generation)
	nonce := out[headerLen : headerLen+nonceLen]
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return s.aead.Seal(out, nonce, plain, p.associated(out[:headerLen])), nil
}

// open returns the value and the generation at which it was sealed. Any
// difference from what seal was given is ErrCorrupt.
func (s *sealer) open(p place, sealed []byte) ([]byte, uint64, error) {
	generation, ok := generationOf(sealed)
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", p, ErrCorrupt)
	}
	nonce := sealed[headerLen : headerLen+nonceLen]
	plain, err := s.aead.Open(nil, nonce, sealed[headerLen+nonceLen:], p.associated(sealed[:headerLen]))
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", p, ErrCorrupt)
	}
	return plain, generation, nil
}

// generationOf reads the generation from an envelope's header, unproven.
func generationOf(sealed []byte) (uint64, bool) {
	if len(sealed) < envelopeLeast || sealed[0] != envelopeVersion {
		return 0, false
	}
	return binary.BigEndian.Uint64(sealed[3:]), true
}

// place is where a value stands.
type place struct{ bucket, key string }

// String is the form for messages; keys may be binary.
func (p place) String() string { return fmt.Sprintf("%s %.80q", p.bucket, p.key) }

// associated frames header, bucket and key so that no two places share a form.
func (p place) associated(header []byte) []byte {
	out := make([]byte, 0, len(header)+4+len(p.bucket)+len(p.key))
	out = append(out, header...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(p.bucket))) //nolint:gosec // a bucket has a short name
	out = append(out, p.bucket...)
	return append(out, p.key...)
}

// digest is the sum over a set of (place, generation), kept sealed in the
// file: it changes when a value is missing, added, or exchanged for an older
// one of its own. Adding and taking away are the same operation, so that a
// commit costs the same however many values there are. Without the key nobody
// can find values whose tags cancel out.
type digest [sha256.Size]byte

// toggle adds the member to the set, or takes it away.
func (s *sealer) toggle(d *digest, p place, generation uint64) {
	var sum digest
	h := s.hash()
	var g [8]byte
	binary.BigEndian.PutUint64(g[:], generation)
	_, _ = h.Write(p.associated(g[:]))
	h.Sum(sum[:0])
	for i := range d {
		d[i] ^= sum[i]
	}
}

func (s *sealer) hash() hash.Hash { return hmac.New(sha256.New, s.mac) }
