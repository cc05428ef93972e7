package credential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

// issuance is one certificate answer under test, with the healthy values of a renewal.
type issuance struct {
	ca       *authority
	now      time.Time
	previous *x509.Certificate
	pub      crypto.PublicKey
	roots    *x509.CertPool
	tmpl     x509.Certificate
	chain    func(leaf *x509.Certificate) []*x509.Certificate
}

func newIssuance(t testing.TB) *issuance {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	i := &issuance{ca: newAuthority(t), now: time.Now(), pub: key.Public(), roots: x509.NewCertPool()}
	i.roots.AddCert(i.ca.root)
	i.tmpl = x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: systemID},
		NotBefore: i.now.Add(-time.Minute), NotAfter: i.now.Add(90 * lifecycle.Day),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{uriOf(IdentityURN + "o"), uriOf("urn:postern:machine:m")},
	}
	older := i.tmpl
	older.NotBefore, older.NotAfter = i.now.Add(-45*lifecycle.Day), i.now.Add(45*lifecycle.Day)
	i.previous = i.sign(t, &older)
	i.chain = func(leaf *x509.Certificate) []*x509.Certificate { return []*x509.Certificate{leaf, i.ca.root} }
	return i
}

func (i *issuance) sign(t testing.TB, tmpl *x509.Certificate) *x509.Certificate {
	t.Helper()
	pub := i.pub
	if tmpl.PublicKey != nil {
		pub = tmpl.PublicKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, i.ca.root, pub, i.ca.rootKey)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func (i *issuance) verify(t *testing.T) error {
	t.Helper()
	return VerifyChain(i.chain(i.sign(t, &i.tmpl)), i.roots, i.pub, i.previous, i.now)
}

func TestHealthyCertificateIsTaken(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *issuance){
		"as it should be":           func(*testing.T, *issuance) {},
		"enrolment, nothing before": func(_ *testing.T, i *issuance) { i.previous = nil },
		"leaf alone, issued by a root": func(_ *testing.T, i *issuance) {
			i.chain = func(l *x509.Certificate) []*x509.Certificate { return []*x509.Certificate{l} }
		},
		"our clock 4 minutes behind":   func(_ *testing.T, i *issuance) { i.tmpl.NotBefore = i.now.Add(4 * time.Minute) },
		"life of 100 years":            func(_ *testing.T, i *issuance) { i.tmpl.NotAfter = i.now.AddDate(100, 0, 0) },
		"life of 1 hour, at enrolment": func(_ *testing.T, i *issuance) { i.previous, i.tmpl.NotAfter = nil, i.now.Add(time.Hour) },
		"ends with the one in use":     func(_ *testing.T, i *issuance) { i.tmpl.NotAfter = i.previous.NotAfter },
		"an Ed25519 key": func(t *testing.T, i *issuance) {
			pub, _, err := ed25519.GenerateKey(rand.Reader)
			must(t, err)
			i.pub = pub
		},
		"names in another order": func(_ *testing.T, i *issuance) { i.tmpl.URIs[0], i.tmpl.URIs[1] = i.tmpl.URIs[1], i.tmpl.URIs[0] },
		"nine certificates in between": func(t *testing.T, i *issuance) {
			i.chain = func(l *x509.Certificate) []*x509.Certificate {
				return append([]*x509.Certificate{l}, repeat(i.ca.root, 9)...)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuance(t)
			change(t, i)
			if err := i.verify(t); err != nil {
				t.Error(err)
			}
		})
	}
}

func repeat(c *x509.Certificate, n int) []*x509.Certificate {
	var all []*x509.Certificate
	for range n {
		all = append(all, c)
	}
	return all
}

// Each row is a guard: the healthy certificate with one thing wrong (ID1, T20).
func TestCertificateThatWouldBreakTheIdentityIsRefused(t *testing.T) {
	rows := map[string]struct {
		change func(*testing.T, *issuance)
		says   string
	}{
		"no chain": {func(_ *testing.T, i *issuance) { i.chain = func(*x509.Certificate) []*x509.Certificate { return nil } }, "holds none"},
		"a hole in the chain": {func(_ *testing.T, i *issuance) {
			i.chain = func(l *x509.Certificate) []*x509.Certificate { return []*x509.Certificate{l, nil} }
		}, "holds none"},
		"chain of 11": {func(_ *testing.T, i *issuance) {
			i.chain = func(l *x509.Certificate) []*x509.Certificate {
				return append([]*x509.Certificate{l}, repeat(i.ca.root, 10)...)
			}
		}, "chain of 11"},
		"over 64 KiB of PEM": {func(_ *testing.T, i *issuance) {
			i.tmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, 50<<10)}}
		}, "bytes"},
		"another key": {func(t *testing.T, i *issuance) {
			other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			must(t, err)
			i.tmpl.PublicKey = other.Public()
		}, "not over the one that was sent"},
		"RSA of 1024 bits": {rsaKey(1024), "RSA key of 1024 bits"},
		"RSA of 8192 bits": {hugeRSA, "RSA key of 8192 bits"},
		"another subject":  {func(_ *testing.T, i *issuance) { i.tmpl.Subject.CommonName = userID }, "this identity is"},
		"a subject with more in it": {func(_ *testing.T, i *issuance) {
			i.tmpl.Subject.OrganizationalUnit = []string{"admins"}
		}, "this identity is"},
		"another name":  {func(_ *testing.T, i *issuance) { i.tmpl.URIs[0] = uriOf(IdentityURN + "x") }, "its names are"},
		"one name more": {func(_ *testing.T, i *issuance) { i.tmpl.DNSNames = []string{"evil.test"} }, "its names are"},
		"an address":    {func(_ *testing.T, i *issuance) { i.tmpl.IPAddresses = []net.IP{{10, 0, 0, 1}} }, "its names are"},
		"a mailbox":     {func(_ *testing.T, i *issuance) { i.tmpl.EmailAddresses = []string{"a@b.test"} }, "its names are"},
		"no name":       {func(_ *testing.T, i *issuance) { i.tmpl.URIs = nil }, "its names are"},
		"already over":  {func(_ *testing.T, i *issuance) { i.tmpl.NotAfter = i.now.Add(-time.Second) }, "it ended"},
		"over this very second": {func(_ *testing.T, i *issuance) {
			i.now = i.now.Truncate(time.Second)
			i.previous, i.tmpl.NotAfter = nil, i.now
		}, "it ended"},
		"valid from tomorrow":    {func(_ *testing.T, i *issuance) { i.tmpl.NotBefore = i.now.Add(lifecycle.Day) }, "not valid before"},
		"ends before it begins":  {func(_ *testing.T, i *issuance) { i.tmpl.NotBefore = i.tmpl.NotAfter.Add(time.Hour) }, "before it begins"},
		"ends a second earlier":  {func(_ *testing.T, i *issuance) { i.tmpl.NotAfter = i.previous.NotAfter.Add(-time.Second) }, "earlier than the one in use"},
		"for servers only":       {func(_ *testing.T, i *issuance) { i.tmpl.ExtKeyUsage = i.tmpl.ExtKeyUsage[:1] }, "incompatible key usage"},
		"for nothing at all":     {func(_ *testing.T, i *issuance) { i.tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }, "incompatible key usage"},
		"an authority's":         {func(_ *testing.T, i *issuance) { i.tmpl.IsCA, i.tmpl.BasicConstraintsValid = true, true }, "authority's certificate"},
		"of a foreign authority": {func(t *testing.T, i *issuance) { i.ca = newAuthority(t) }, "unknown authority"},
		"no root at all":         {func(_ *testing.T, i *issuance) { i.roots = nil }, "no pinned root"},
		"an empty pool":          {func(_ *testing.T, i *issuance) { i.roots = x509.NewCertPool() }, "unknown authority"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			i := newIssuance(t)
			row.change(t, i)
			err := i.verify(t)
			if !errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("got %v, want a refusal that says %q", err, row.says)
			}
		})
	}
}

func rsaKey(bits int) func(*testing.T, *issuance) {
	return func(t *testing.T, i *issuance) {
		t.Setenv("GODEBUG", "rsa1024min=0")
		key, err := rsa.GenerateKey(rand.Reader, bits)
		must(t, err)
		i.pub, i.previous = key.Public(), nil
	}
}

// hugeRSA makes a public key only: it is checked before anything is computed with it.
func hugeRSA(t *testing.T, i *issuance) {
	n := new(big.Int).Lsh(big.NewInt(1), 8191)
	i.pub, i.previous = &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}, nil
}

func TestNewKeysHaveTheirAlgorithm(t *testing.T) {
	for algorithm, want := range map[string]string{"": "*ecdsa.PrivateKey", AlgorithmEC: "*ecdsa.PrivateKey", AlgorithmRSA: "*rsa.PrivateKey"} {
		signer, err := generate(algorithm)
		must(t, err)
		if got := typeName(signer); got != want {
			t.Errorf("%q: got %s, want %s", algorithm, got, want)
		}
	}
	if _, err := generate("EC-P521"); err == nil {
		t.Error("an algorithm that is not offered was taken")
	}
}

func FuzzVerifyChain(f *testing.F) {
	i := newIssuance(f)
	leaf := i.sign(f, &i.tmpl)
	f.Add(leaf.Raw, i.ca.root.Raw, i.now.Unix())
	f.Add(i.ca.root.Raw, leaf.Raw, i.now.AddDate(1, 0, 0).Unix())
	f.Fuzz(func(t *testing.T, a, b []byte, at int64) {
		var chain []*x509.Certificate
		for _, der := range [][]byte{a, b} {
			if cert, err := x509.ParseCertificate(der); err == nil {
				chain = append(chain, cert)
			}
		}
		now := time.Unix(at, 0)
		err := VerifyChain(chain, i.roots, i.pub, i.previous, now)
		if err != nil {
			if !errors.Is(err, ErrCertificate) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if !samePublicKey(chain[0].PublicKey, i.pub) || chain[0].Subject.CommonName != systemID || !now.Before(chain[0].NotAfter) {
			t.Fatalf("taken: %s", chain[0].Subject)
		}
	})
}
