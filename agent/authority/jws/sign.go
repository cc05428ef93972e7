package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// ErrKey is returned for a key that does not fit the algorithm, or that is too
// short or too long to be used.
var ErrKey = errors.New("key does not fit the algorithm")

// Algorithm returns the algorithm that is used for a key unless told
// otherwise: PS256 for RSA, ES256 for P-256, and ErrKey for everything else.
func Algorithm(pub crypto.PublicKey) (string, error) {
	for _, alg := range []string{PS256, ES256} {
		if fits(pub, alg) == nil {
			return alg, nil
		}
	}
	return "", fmt.Errorf("jws: %T: %w", pub, ErrKey)
}

// Sign returns the compact form "header.claims.signature". header and claims
// are anything that encodes as a JSON object; a nil header is an empty one.
// "alg" is set here, and a header that names another one is an error. The
// signer may live in a TPM; it is called once. Errors: ErrKey, or what
// encoding or the signer says.
func Sign(signer crypto.Signer, alg string, header, claims any) (string, error) {
	if err := fits(signer.Public(), alg); err != nil {
		return "", err
	}
	head, err := headerWith(alg, header)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("jws: encode claims: %w", err)
	}
	if !bytes.HasPrefix(body, []byte("{")) {
		return "", errors.New("jws: claims are not a JSON object")
	}
	return signBytes(signer, alg, head, body)
}

// headerWith encodes header with "alg" put in.
func headerWith(alg string, header any) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if header != nil {
		raw, err := json.Marshal(header)
		if err != nil {
			return nil, fmt.Errorf("jws: encode header: %w", err)
		}
		if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
			return nil, errors.New("jws: header is not a JSON object")
		}
	}
	name, err := json.Marshal(alg)
	if err != nil {
		return nil, err
	}
	if old, there := fields["alg"]; there && !bytes.Equal(old, name) {
		return nil, fmt.Errorf("jws: header names %s, not %s", old, name)
	}
	fields["alg"] = name
	return json.Marshal(fields)
}

// signBytes signs the two parts as they are.
func signBytes(signer crypto.Signer, alg string, head, body []byte) (string, error) {
	input := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	digest := sha256.Sum256([]byte(input))
	sig, err := signer.Sign(rand.Reader, digest[:], signerOpts(alg))
	if err != nil {
		return "", fmt.Errorf("jws: sign %s: %w", alg, err)
	}
	if alg == ES256 {
		if sig, err = joinRS(sig); err != nil {
			return "", err
		}
	}
	// A TPM is free to choose the longest salt, which no verifier takes. Said
	// here it is a sentence; said by the authority it is "invalid_client".
	if err := verifyDigest(signer.Public(), alg, digest[:], sig); err != nil {
		return "", fmt.Errorf("jws: the key's own %s signature does not verify: %w", alg, err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

func signerOpts(alg string) crypto.SignerOpts {
	if alg == PS256 {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	return crypto.SHA256
}

// joinRS turns the ASN.1 form that a crypto.Signer makes into the r||s of RFC
// 7518 section 3.4: 32 bytes each, big-endian, zero-padded.
func joinRS(der []byte) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &sig)
	if err != nil {
		return nil, fmt.Errorf("jws: ECDSA signature: %w", err)
	}
	if len(rest) != 0 || sig.R.Sign() <= 0 || sig.S.Sign() <= 0 || sig.R.BitLen() > 256 || sig.S.BitLen() > 256 {
		return nil, errors.New("jws: ECDSA signature is not a pair of P-256 numbers")
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}

// fits says whether the key can be used with the algorithm.
func fits(pub crypto.PublicKey, alg string) error {
	ok := false
	switch key := pub.(type) {
	case *rsa.PublicKey:
		bits := key.N.BitLen()
		ok = (alg == RS256 || alg == PS256) && bits >= minRSABits && bits <= maxRSABits
	case *ecdsa.PublicKey:
		ok = alg == ES256 && key.Curve == elliptic.P256()
	}
	if !ok {
		return fmt.Errorf("jws: %T with %q: %w", pub, alg, ErrKey)
	}
	return nil
}
