//go:build interop

package authorities

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"testing"

	"postern/agent/credential"
)

// jwkOf is a public key in RFC 7517's form.
func jwkOf(t *testing.T, kid string, pub crypto.PublicKey) map[string]any {
	t.Helper()
	if kid == "" {
		kid = "provisioner"
	}
	out := map[string]any{"use": "sig", "kid": kid}
	encode := base64.RawURLEncoding.EncodeToString
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil || len(point) != 65 {
			t.Fatalf("%d bytes, %v", len(point), err)
		}
		out["kty"], out["crv"], out["alg"] = "EC", "P-256", "ES256"
		out["x"], out["y"] = encode(point[1:33]), encode(point[33:])
	case *rsa.PublicKey:
		out["kty"], out["n"], out["e"] = "RSA", encode(key.N.Bytes()), encode(big.NewInt(int64(key.E)).Bytes())
	default:
		t.Fatalf("%T", pub)
	}
	return out
}

// jwks are the keys of credentials, named as assertions name them.
func jwks(t *testing.T, who ...*credential.Credential) map[string]any {
	t.Helper()
	var keys []any
	for _, c := range who {
		key := jwkOf(t, c.Thumbprint(), c.Signer.Public())
		key["x5t#S256"] = c.Thumbprint()
		keys = append(keys, key)
	}
	return map[string]any{"keys": keys}
}
