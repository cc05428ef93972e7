package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// ErrSignature is returned by Verify when the signature is not the key's.
var ErrSignature = errors.New("signature does not verify")

// ErrAlgorithm is returned by Verify when the token names an algorithm that
// the verifier did not allow.
var ErrAlgorithm = errors.New("algorithm is not allowed")

// Verify reports whether pub signed the token with one of the algorithms that
// the caller allows; none allowed means none accepted. The token's own "alg"
// chooses only within that list, so that a key is never used with an algorithm
// that it was not registered for (RFC 8725 section 3.1). Errors: ErrAlgorithm,
// ErrKey, ErrSignature.
func (t *Token) Verify(pub crypto.PublicKey, allowed ...string) error {
	alg := t.Header.Algorithm
	if !slices.Contains(allowed, alg) {
		return fmt.Errorf("jws: %q: %w", alg, ErrAlgorithm)
	}
	if err := fits(pub, alg); err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(t.input))
	return verifyDigest(pub, alg, digest[:], t.signature)
}

// verifyDigest checks a signature in the form of RFC 7518 by a key that fits.
func verifyDigest(pub crypto.PublicKey, alg string, digest, sig []byte) error {
	ok := false
	switch key := pub.(type) {
	case *rsa.PublicKey:
		ok = verifyRSA(key, alg, digest, sig)
	case *ecdsa.PublicKey:
		ok = len(sig) == 64 && // the ASN.1 form has another length and is not a JWS signature
			ecdsa.Verify(key, digest, new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	}
	if !ok {
		return fmt.Errorf("jws: %s: %w", alg, ErrSignature)
	}
	return nil
}

func verifyRSA(key *rsa.PublicKey, alg string, digest, sig []byte) bool {
	if alg == PS256 {
		// The salt's length is part of the algorithm (RFC 7518 section 3.5).
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		return rsa.VerifyPSS(key, crypto.SHA256, digest, sig, opts) == nil
	}
	return alg == RS256 && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, sig) == nil
}
