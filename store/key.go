package store

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Key is a key-encryption key. Nothing is sealed with it directly: each file
// has keys of its own, derived from it (RFC 5869). It is immutable and safe
// for concurrent use.
type Key struct {
	file       Secret // what the key file holds, 32 bytes
	material   Secret // the same, with the external part behind it
	id         string
	protection string
}

// ID names the key without saying anything about it: 16 hex digits. It stands
// in each file that the key seals.
func (k *Key) ID() string { return k.id }

// Protection is where the key lives, in one word: "file", "tpm", "credential", "dpapi".
func (k *Key) Protection() string { return k.protection }

// The key file holds the same line three times, each in a page of its own, so
// that neither a flipped bit nor a zeroed or truncated page loses the key:
// without it both copies of the identity are worthless.
const (
	keyBytes  = 32
	keyCopies = 3
	keyStride = 4096
	keyLimit  = 16 << 10
	keyWord   = "postern-key-1 "
	keyLine   = len(keyWord) + 2*keyBytes + 1 + 2*sha256.Size
)

// LoadKey reads the key file at path. Errors: ErrNotFound if there is none,
// ErrDamaged if no copy in it is whole, else that of Options.OpenFile.
func LoadKey(path string, o Options) (*Key, error) {
	o = o.filled()
	if err := notRegular(path); err != nil {
		return nil, err
	}
	content, err := readWhole(o, path, keyLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key file %s: %w", path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer clear(content)
	raw, whole := decodeKeyFile(content)
	if raw == nil {
		return nil, fmt.Errorf("key file %s: %w", path, ErrDamaged)
	}
	defer clear(raw)
	if !whole {
		o.Log.Warn("key file has damaged copies and is written anew", "event", "store-recovered", "path", path)
		if err := o.WriteFile(path, encodeKeyFile(raw)); err != nil {
			o.Log.Warn("key file could not be written anew", "path", path, "error", err)
		}
	}
	return newKey(raw, o)
}

// CreateKey makes a new key and its file. fs.ErrExist if path is taken: a key
// is never overwritten.
func CreateKey(path string, o Options) (*Key, error) {
	o = o.filled()
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("key file %s: %w", path, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	raw := make([]byte, keyBytes)
	defer clear(raw)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := o.WriteFile(path, encodeKeyFile(raw)); err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return newKey(raw, o)
}

func newKey(raw []byte, o Options) (*Key, error) {
	k := &Key{file: NewSecret(string(raw)), protection: "file"}
	k.material = k.file
	if !o.External.Empty() {
		k.material, k.protection = NewSecret(string(raw)+o.External.Reveal()), o.Protection
	}
	id, err := k.derive(nil, "key id", 8)
	if err != nil {
		return nil, err
	}
	k.id = hex.EncodeToString(id)
	return k, nil
}

// derive makes n bytes for one purpose in one file.
func (k *Key) derive(file []byte, purpose string, n int) ([]byte, error) {
	secret := []byte(k.material.Reveal())
	defer clear(secret)
	return hkdf.Key(sha256.New, secret, file, "postern store 1 "+purpose, n)
}

// keep writes the key file again if it is gone, so that deleting it under the
// running process costs nothing. A file that holds another key is left alone.
func (k *Key) keep(path string, o Options) error {
	if !missing(path) {
		return nil
	}
	raw := []byte(k.file.Reveal())
	defer clear(raw)
	if err := o.WriteFile(path, encodeKeyFile(raw)); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	o.Log.Warn("key file was deleted and is written anew", "event", "store-recovered", "path", path)
	return nil
}

func encodeKeyFile(raw []byte) []byte {
	sum := sha256.Sum256(raw)
	line := fmt.Appendf(nil, "%s%x %x", keyWord, raw, sum)
	defer clear(line)
	content := bytes.Repeat([]byte{'\n'}, (keyCopies-1)*keyStride+keyLine+1)
	for i := range keyCopies {
		copy(content[i*keyStride:], line)
	}
	return content
}

// decodeKeyFile returns the first whole copy, nil if there is none, and
// whether all copies are whole and equal. Two whole copies that differ cannot
// come from damage: then nothing is returned.
func decodeKeyFile(content []byte) (raw []byte, whole bool) {
	if len(content) == keyBytes { // as written by hand or by an image builder
		return bytes.Clone(content), true
	}
	whole = true
	for i := range keyCopies {
		part := decodeKeyLine(content, i*keyStride)
		switch {
		case part == nil:
			whole = false
		case raw == nil:
			raw = part
		case !bytes.Equal(raw, part):
			return nil, false
		}
	}
	return raw, whole && raw != nil
}

func decodeKeyLine(content []byte, at int) []byte {
	if len(content) < at+keyLine {
		return nil
	}
	line := content[at : at+keyLine]
	text, ok := bytes.CutPrefix(line, []byte(keyWord))
	if !ok || text[2*keyBytes] != ' ' {
		return nil
	}
	raw, sum := make([]byte, keyBytes), make([]byte, sha256.Size)
	if _, err := hex.Decode(raw, text[:2*keyBytes]); err != nil {
		return nil
	}
	if _, err := hex.Decode(sum, text[2*keyBytes+1:]); err != nil {
		return nil
	}
	if want := sha256.Sum256(raw); !bytes.Equal(sum, want[:]) {
		return nil
	}
	return raw
}
