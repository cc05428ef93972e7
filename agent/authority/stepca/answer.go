package stepca

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"postern/agent/authority"
)

// Limits of a certificate answer (firmware-notes/limits.md). Its size is bounded
// by authority.BodyLimit.
const (
	maxChain   = 10
	maxRSABits = 4096
)

// certificates reads the answer of sign, renew and rekey: the chain, leaf
// first, over the key that was sent. Whatever is wrong with it is Transient:
// the credential in use goes on.
func certificates(op string, resp *authority.Response, pub crypto.PublicKey) ([]*x509.Certificate, error) {
	var answer struct {
		Leaf  string   `json:"crt"`
		CA    string   `json:"ca"`
		Chain []string `json:"certChain"`
	}
	if err := json.Unmarshal(resp.Body, &answer); err != nil {
		return nil, malformed(op, "not the JSON of a certificate", err)
	}
	if len(answer.Chain) == 0 {
		answer.Chain = []string{answer.Leaf, answer.CA}
	}
	var chain []*x509.Certificate
	for _, text := range answer.Chain {
		certs, err := parseChain(text, maxChain-len(chain))
		if err != nil {
			return nil, malformed(op, err.Error(), nil)
		}
		chain = append(chain, certs...)
	}
	if len(chain) == 0 {
		return nil, malformed(op, "no certificate", nil)
	}
	if !sameKey(chain[0].PublicKey, pub) {
		return nil, malformed(op, "the certificate is over another key than was sent", nil)
	}
	return chain, nil
}

// parseChain reads concatenated PEM certificates, at most room of them.
func parseChain(text string, room int) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	rest := []byte(text)
	for strings.TrimSpace(string(rest)) != "" {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("a certificate is not PEM")
		}
		if len(chain) >= room {
			return nil, fmt.Errorf("a chain of more than %d", maxChain)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate cannot be read: %s", authority.Clean(err.Error(), authority.MaxText))
		}
		if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
			return nil, fmt.Errorf("an RSA key of more than %d bits", maxRSABits)
		}
		chain = append(chain, cert)
	}
	return chain, nil
}
