package site

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"
)

// signingKey is one RS256 key for access tokens.
type signingKey struct {
	kid    string
	key    rsaKey
	record signingRecord
}

// signer holds the signing keys, oldest first by the instant from which they
// sign. The newest whose instant has come signs.
type signer struct {
	mu   sync.Mutex // held while a key is made, so that only one is
	keys []signingKey
}

func (a *Authority) makeSigningKey(now, from time.Time) (signingKey, error) {
	generate := func() (rsaKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }
	if a.opts.signingKey != nil {
		generate = a.opts.signingKey
	}
	key, err := generate()
	if err != nil {
		return signingKey{}, fmt.Errorf("make signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return signingKey{}, err
	}
	return signingKey{
		kid: rsaThumbprint(key), key: key,
		record: signingRecord{PKCS8: der, Made: now.UTC(), From: from.UTC()},
	}, nil
}

func (t *tx) readSigner() (*signer, error) {
	s := &signer{}
	err := each(t, bucketSigning, func(kid string, r signingRecord) error {
		k, err := openKey(r.PKCS8)
		if err != nil {
			return fmt.Errorf("signing key %s: %w", kid, err)
		}
		key, ok := k.(rsaKey)
		if !ok {
			return fmt.Errorf("signing key %s: %T is no RSA key", kid, k)
		}
		s.keys = append(s.keys, signingKey{kid: kid, key: key, record: r})
		return nil
	})
	if err == nil && len(s.keys) == 0 {
		err = fmt.Errorf("the database holds no signing key")
	}
	s.sort()
	return s, err
}

func (s *signer) sort() {
	sort.Slice(s.keys, func(i, j int) bool { return s.keys[i].record.From.Before(s.keys[j].record.From) })
}

// active returns the index of the key that signs at now.
func (s *signer) active(now time.Time) int {
	for i := len(s.keys) - 1; i > 0; i-- {
		if !now.Before(s.keys[i].record.From) {
			return i
		}
	}
	return 0
}

// signingKeys returns the key that signs now and the keys that are published
// now: the signing one, the next one, and each old one until its last token is
// dead. It makes the next key a week before it is needed.
func (a *Authority) signingKeys(ctx context.Context) (signingKey, []signingKey, error) {
	s := a.signing
	s.mu.Lock()
	defer s.mu.Unlock()
	now := a.now()
	i := s.active(now)
	due := s.keys[i].record.From.Add(signingLife)
	if i == len(s.keys)-1 && !now.Before(due.Add(-signingNotice)) {
		if err := a.addSigningKey(ctx, now, later(due, now)); err != nil {
			return signingKey{}, nil, err
		}
		i = s.active(now)
	}
	first := i
	for first > 0 && now.Before(s.keys[first].record.From.Add(tokenLife+assertionSkew)) {
		first--
	}
	return s.keys[i], slices.Clone(s.keys[first:]), nil
}

// addSigningKey makes and commits a key that signs from an instant on. The
// three newest are kept whatever the clock says: a clock that jumped ahead must
// not destroy the key of tokens that are alive. The caller holds signer.mu.
func (a *Authority) addSigningKey(ctx context.Context, now, from time.Time) error {
	const kept = 3
	next, err := a.makeSigningKey(now, from)
	if err != nil {
		return err
	}
	s := a.signing
	keys := append(slices.Clone(s.keys), next)
	dead := keys[:max(0, len(keys)-kept)]
	err = a.update(ctx, func(t *tx) error {
		for _, k := range dead {
			if err := drop(t, bucketSigning, k.kid); err != nil {
				return err
			}
		}
		t.note(Entry{Action: "signing-key-made", Principal: "authority", JTI: next.kid})
		return save(t, bucketSigning, next.kid, next.record)
	})
	if err != nil {
		return err
	}
	s.keys = slices.Clone(keys[len(dead):])
	s.sort()
	return nil
}

// jwk is one key of a JWKS (RFC 7517).
type jwk struct {
	Type      string `json:"kty"`
	Use       string `json:"use,omitempty"`
	KeyID     string `json:"kid,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
}

func rsaJWK(kid string, key *rsa.PublicKey) jwk {
	b64 := base64.RawURLEncoding
	return jwk{
		Type: "RSA", Use: "sig", KeyID: kid, Algorithm: "RS256",
		N: b64.EncodeToString(key.N.Bytes()), E: b64.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}
}

// rsaThumbprint is the RFC 7638 thumbprint.
func rsaThumbprint(key rsaKey) string {
	j := rsaJWK("", &key.PublicKey)
	sum := sha256.Sum256([]byte(`{"e":` + strconv.Quote(j.E) + `,"kty":"RSA","n":` + strconv.Quote(j.N) + `}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
