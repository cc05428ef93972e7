package site

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/url"
	"time"
)

// issuer is a certificate of the authority's own with its key.
type issuer struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// newECKey makes a P-256 key.
func newECKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// makeRoot makes the root of a new site. It lives 10 years; devices pin it.
func makeRoot(tenant string, now time.Time) (issuer, error) {
	key, err := newECKey()
	if err != nil {
		return issuer{}, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Postern Site " + tenant[:8] + " Root CA"},
		NotBefore: now.Add(-rootBackdate), NotAfter: now.Add(rootLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLen: 1,
	}
	return issue(template, key, issuer{certificate: template, key: key})
}

// makeIntermediate makes an intermediate of 5 years, or what the root has left.
func makeIntermediate(tenant string, root issuer, now time.Time) (issuer, error) {
	key, err := newECKey()
	if err != nil {
		return issuer{}, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Postern Site " + tenant[:8] + " Intermediate CA"},
		NotBefore: now.Add(-rootBackdate), NotAfter: earlier(now.Add(intermediateLife), root.certificate.NotAfter),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	if template.NotBefore.Before(root.certificate.NotBefore) {
		template.NotBefore = root.certificate.NotBefore
	}
	return issue(template, key, root)
}

// issue signs template over key's public part with by, and returns both.
func issue(template *x509.Certificate, key crypto.Signer, by issuer) (issuer, error) {
	cert, err := sign(template, key.Public(), by)
	return issuer{certificate: cert, key: key}, err
}

func sign(template *x509.Certificate, pub crypto.PublicKey, by issuer) (*x509.Certificate, error) {
	template.SerialNumber = newSerial()
	if len(template.SubjectKeyId) == 0 {
		id, err := keyID(pub)
		if err != nil {
			return nil, err
		}
		template.SubjectKeyId = id
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.certificate, pub, by.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// keyID is the first 160 bits of the SHA-256 of the public key (RFC 7093 section 2).
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

// leafTemplate is an identity's certificate: everything but key and issuer.
// Both usages stand in it, as step-ca's default template has them; without a
// DNS name or address in it no client would take it for a server.
func leafTemplate(commonName string, sans []string, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: commonName},
		NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, san := range sans {
		u, err := url.Parse(san)
		if err != nil || u.Scheme == "" {
			return nil, fmt.Errorf("name %q is no URI", san)
		}
		t.URIs = append(t.URIs, u)
	}
	return t, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func certPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func (r issuerRecord) open() (issuer, error) {
	key, err := openKey(r.PKCS8)
	if err != nil {
		return issuer{}, err
	}
	i := issuer{key: key}
	if len(r.Certificate) > 0 {
		if i.certificate, err = x509.ParseCertificate(r.Certificate); err != nil {
			return issuer{}, err
		}
	}
	return i, nil
}

func (i issuer) record(now time.Time) (issuerRecord, error) {
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return issuerRecord{}, err
	}
	r := issuerRecord{PKCS8: der, Made: now}
	if i.certificate != nil {
		r.Certificate = i.certificate.Raw
	}
	return r, nil
}

func openKey(pkcs8 []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key: %T does not sign", k)
	}
	return key, nil
}
