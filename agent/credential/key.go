package credential

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"go.step.sm/crypto/fingerprint"

	"postern/store"
)

// The algorithms of new keys.
const (
	AlgorithmEC  = "EC-P256"  // the default
	AlgorithmRSA = "RSA-2048" // for authorities that take RSA only
)

// generate makes a private key. It blocks while the kernel gathers entropy.
func generate(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "", AlgorithmEC:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case AlgorithmRSA:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("key algorithm %q: want %s or %s", algorithm, AlgorithmEC, AlgorithmRSA)
}

// entropyPatience is how long a key may take before somebody is told why.
const entropyPatience = 2 * time.Second

// newKey makes a key and its record, without a certificate. A board that was
// switched on for the first time may have to wait for entropy: step is told.
func (d *Device) newKey(step func(string)) (store.KeyRecord, crypto.Signer, error) {
	waiting := time.AfterFunc(entropyPatience, func() {
		step("key: waiting for the kernel to gather entropy")
		d.log.Warn("key: waiting for the kernel to gather entropy")
	})
	defer waiting.Stop()
	signer, err := d.generate(d.o.Algorithm)
	if err != nil {
		return store.KeyRecord{}, nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return store.KeyRecord{}, nil, fmt.Errorf("encode key: %w", err)
	}
	return store.KeyRecord{Protection: d.o.Protection, PKCS8: der, Made: d.clock.Now().Wall}, signer, nil
}

// signerOf reads the private key of a record.
func signerOf(k store.KeyRecord) (crypto.Signer, error) {
	if len(k.PKCS8) == 0 {
		return nil, fmt.Errorf("the key is not in the record but in %s %q, which this program cannot reach", k.Protection, k.Handle)
	}
	key, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read key: %T cannot sign", key)
	}
	return signer, nil
}

// credentialOf reads a record. A key that does not belong to the certificate
// is an error that names both by the SHA-256 of their public keys (ID6).
func credentialOf(id Identity, k store.KeyRecord) (*Credential, error) {
	signer, err := signerOf(k)
	if err != nil {
		return nil, err
	}
	chain, err := parseChain(k.Chain)
	if err != nil {
		return nil, err
	}
	if !samePublicKey(chain[0].PublicKey, signer.Public()) {
		return nil, fmt.Errorf("the key %s does not belong to the certificate, which is over %s",
			keyPrint(signer.Public()), keyPrint(chain[0].PublicKey))
	}
	return &Credential{Identity: id, Signer: signer, Chain: chain, Protection: k.Protection, Made: k.Made}, nil
}

func parseChain(der [][]byte) ([]*x509.Certificate, error) {
	if len(der) == 0 {
		return nil, errors.New("read certificate: there is none")
	}
	var chain []*x509.Certificate
	for _, raw := range der {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		chain = append(chain, cert)
	}
	return chain, nil
}

func rawChain(chain []*x509.Certificate) [][]byte {
	raw := make([][]byte, 0, len(chain))
	for _, cert := range chain {
		raw = append(raw, cert.Raw)
	}
	return raw
}

// samePublicKey compares by encoding, so that it holds for every kind of key.
func samePublicKey(a, b crypto.PublicKey) bool {
	x, errX := x509.MarshalPKIXPublicKey(a)
	y, errY := x509.MarshalPKIXPublicKey(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// keyPrint names a public key: the first 16 hex digits of the SHA-256 of its DER.
func keyPrint(pub crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "of an unknown kind"
	}
	sum := sha256.Sum256(der)
	return fingerprint.Fingerprint(sum[:8], fingerprint.HexFingerprint)
}

// certPrint names a certificate as step and its authority do: the SHA-256 of its DER, in hex.
func certPrint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return fingerprint.Fingerprint(sum[:], fingerprint.HexFingerprint)
}
