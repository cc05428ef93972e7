package authoritytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"postern/agent/credential"
)

// PKI is a root and an intermediate of its own, made for one test.
type PKI struct {
	tb           testing.TB
	Root, Middle *x509.Certificate
	rootKey      *ecdsa.PrivateKey
	middleKey    *ecdsa.PrivateKey
	now          time.Time
}

// NewPKI makes one whose certificates are valid from an hour before now for ten years.
func NewPKI(tb testing.TB, now time.Time) *PKI {
	tb.Helper()
	p := &PKI{tb: tb, rootKey: NewKey(tb), middleKey: NewKey(tb), now: now}
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: serial(tb), Subject: pkix.Name{CommonName: name},
			NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	root := ca("Test Root")
	p.Root = p.sign(root, root, &p.rootKey.PublicKey, p.rootKey)
	p.Middle = p.sign(ca("Test Intermediate"), p.Root, &p.middleKey.PublicKey, p.rootKey)
	return p
}

// MiddleKey is the key of the intermediate, for authorities that sign by themselves.
func (p *PKI) MiddleKey() crypto.Signer { return p.middleKey }

// NewKey makes a P-256 key.
func NewKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func (p *PKI) sign(template, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	p.tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	if err != nil {
		p.tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		p.tb.Fatal(err)
	}
	return cert
}

// Pool holds the root alone.
func (p *PKI) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Root)
	return pool
}

// RootPEM is the root in PEM.
func (p *PKI) RootPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Root.Raw}))
}

// RootSHA256 is the root's fingerprint in lower-case hex.
func (p *PKI) RootSHA256() string {
	sum := sha256.Sum256(p.Root.Raw)
	return hex.EncodeToString(sum[:])
}

// Leaf signs a certificate over pub by the intermediate: server and client use,
// 90 days from a minute before now, unless change says otherwise. names are DNS
// names, addresses or URIs; the first is the common name.
func (p *PKI) Leaf(pub crypto.PublicKey, change func(*x509.Certificate), names ...string) []*x509.Certificate {
	p.tb.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(p.tb),
		NotBefore:    p.now.Add(-time.Minute), NotAfter: p.now.AddDate(0, 0, 90),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(names) > 0 {
		template.Subject.CommonName = names[0]
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			template.URIs = append(template.URIs, u)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if change != nil {
		change(template)
	}
	return []*x509.Certificate{p.sign(template, p.Middle, pub, p.middleKey), p.Middle}
}

// Server is a certificate for a TLS server of these names.
func (p *PKI) Server(names ...string) tls.Certificate {
	p.tb.Helper()
	key := NewKey(p.tb)
	return TLSCertificate(key, p.Leaf(&key.PublicKey, nil, names...))
}

// TLSCertificate puts key and chain together.
func TLSCertificate(key crypto.PrivateKey, chain []*x509.Certificate) tls.Certificate {
	out := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out
}

// Credential is one for the client id with a P-256 key.
func (p *PKI) Credential(clientID string) *credential.Credential {
	p.tb.Helper()
	key := NewKey(p.tb)
	return &credential.Credential{
		Identity: credential.Identity{Kind: credential.SystemAssigned, Name: clientID, ClientID: clientID},
		Signer:   key, Chain: p.Leaf(&key.PublicKey, nil, clientID, "urn:device:"+clientID),
		Protection: "file", Made: p.now,
	}
}
