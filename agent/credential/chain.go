package credential

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"time"

	"postern/agent/lifecycle"
)

// Limits of a certificate answer (firmware-notes/limits.md).
const (
	maxChain     = 10
	maxChainPEM  = 64 << 10
	minRSABits   = 2048
	maxRSABits   = 4096
	longLifetime = 398 * lifecycle.Day // more is accepted and warned about (ID2)
)

// VerifyChain checks the authority's answer before anything is built on it.
// chain is leaf first; pub is the key that was sent; now is the time to judge
// by (lifecycle.Clock.VerifyTime); roots are the pinned roots and must not be
// nil. With previous, the certificate in use, the new one must be for the same
// subject and names and must not end earlier; the same end is what a renewal in
// the same second brings, or an issuer that ends soon itself. Without
// (enrolment) those two are not asked. Every failure wraps ErrCertificate: keep what works, try again.
// Refusals are T20 (firmware-notes/attack-surface.md) and ID1 (firmware-notes/faults.md).
func VerifyChain(chain []*x509.Certificate, roots *x509.CertPool, pub crypto.PublicKey, previous *x509.Certificate, now time.Time) error {
	for _, check := range []func() error{
		func() error { return checkSize(chain) },
		func() error { return checkKeys(chain, pub) },
		func() error { return checkTimes(chain[0], now) },
		func() error { return checkSame(chain[0], previous) },
		func() error { return checkTrust(chain, roots, now) },
	} {
		if err := check(); err != nil {
			return fmt.Errorf("%w: %w", ErrCertificate, err)
		}
	}
	return nil
}

func checkSize(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return fmt.Errorf("the answer holds none")
	}
	if len(chain) > maxChain {
		return fmt.Errorf("a chain of %d, at most %d are taken", len(chain), maxChain)
	}
	size := 0
	for _, cert := range chain {
		if cert == nil {
			return fmt.Errorf("the answer holds none")
		}
		size += base64.StdEncoding.EncodedLen(len(cert.Raw)) + len(cert.Raw)/48 + 54 // PEM: lines of 64, header, footer
	}
	if size > maxChainPEM {
		return fmt.Errorf("a chain of %d bytes, at most %d are taken", size, maxChainPEM)
	}
	return nil
}

func checkKeys(chain []*x509.Certificate, pub crypto.PublicKey) error {
	if !samePublicKey(chain[0].PublicKey, pub) {
		return fmt.Errorf("it is over key %s, not over the one that was sent, %s", keyPrint(chain[0].PublicKey), keyPrint(pub))
	}
	for _, cert := range chain {
		key, ok := cert.PublicKey.(*rsa.PublicKey)
		if !ok {
			continue
		}
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("an RSA key of %d bits, %d to %d are taken", bits, minRSABits, maxRSABits)
		}
	}
	return nil
}

func checkTimes(leaf *x509.Certificate, now time.Time) error {
	switch {
	case !leaf.NotAfter.After(leaf.NotBefore):
		return fmt.Errorf("it ends, %s, before it begins, %s", stamp(leaf.NotAfter), stamp(leaf.NotBefore))
	case !now.Before(leaf.NotAfter):
		return fmt.Errorf("it ended %s, now is %s", stamp(leaf.NotAfter), stamp(now))
	case leaf.NotBefore.After(now.Add(lifecycle.ClockTolerance)):
		return fmt.Errorf("it is not valid before %s, now is %s", stamp(leaf.NotBefore), stamp(now))
	}
	return nil
}

// checkSame keeps an authority from changing who we are by a renewal.
func checkSame(leaf, previous *x509.Certificate) error {
	switch {
	case previous == nil:
		return nil
	case !bytes.Equal(leaf.RawSubject, previous.RawSubject):
		return fmt.Errorf("it is for %q, this identity is %q", leaf.Subject, previous.Subject)
	case !slices.Equal(names(leaf), names(previous)):
		return fmt.Errorf("its names are %q, this identity's %q", names(leaf), names(previous))
	case leaf.NotAfter.Before(previous.NotAfter):
		return fmt.Errorf("it ends %s, earlier than the one in use, %s", stamp(leaf.NotAfter), stamp(previous.NotAfter))
	}
	return nil
}

// names lists all subject alternative names, sorted, each with its kind.
func names(cert *x509.Certificate) []string {
	var all []string
	for _, n := range cert.DNSNames {
		all = append(all, "dns:"+n)
	}
	for _, n := range cert.EmailAddresses {
		all = append(all, "email:"+n)
	}
	for _, n := range cert.IPAddresses {
		all = append(all, "ip:"+n.String())
	}
	for _, n := range cert.URIs {
		all = append(all, "uri:"+n.String())
	}
	slices.Sort(all)
	return all
}

func checkTrust(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	if roots == nil {
		// A nil pool would mean the system's roots to crypto/x509: any public
		// authority could then name this device.
		return fmt.Errorf("no pinned root to check it against")
	}
	if chain[0].IsCA {
		return fmt.Errorf("it is an authority's certificate")
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: latest(now, chain),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// latest is now, or the last NotBefore of the chain where that is later by no
// more than the tolerance: our clock may be a little behind the authority's.
func latest(now time.Time, chain []*x509.Certificate) time.Time {
	at := now
	for _, cert := range chain {
		if cert.NotBefore.After(at) && !cert.NotBefore.After(now.Add(lifecycle.ClockTolerance)) {
			at = cert.NotBefore
		}
	}
	return at
}

// uri returns what follows prefix in the first URI name that begins with it.
func uri(cert *x509.Certificate, prefix string) string {
	i := slices.IndexFunc(cert.URIs, func(u *url.URL) bool { return len(u.String()) > len(prefix) && u.String()[:len(prefix)] == prefix })
	if i < 0 {
		return ""
	}
	return cert.URIs[i].String()[len(prefix):]
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
