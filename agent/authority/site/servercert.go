package site

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"time"
)

// serverCertificate is the authority's own TLS certificate. Its key lives in
// memory only: devices pin the root, so each start may make a new one.
type serverCertificate struct {
	certificate tls.Certificate
	from, until time.Time // renewed outside of this span: after half its life, or if the clock went back
}

// TLSConfig is how the authority serves: TLS 1.2 or newer, HTTP/1.1, its own
// certificate, and client certificates verified against its own CA at the
// present moment if one is given. An expired one ends the handshake with the
// alert certificate_expired. There is no session resumption, so that every
// connection shows its certificate.
func (a *Authority) TLSConfig() *tls.Config {
	c := a.tlsConfig()
	// The pool grows when an intermediate is renewed.
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return a.tlsConfig(), nil }
	return c
}

func (a *Authority) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"http/1.1"},
		ClientAuth:             tls.VerifyClientCertIfGiven,
		ClientCAs:              a.roots(),
		Time:                   a.now,
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.serverCertificate(context.Background())
		},
	}
}

// serverCertificate returns the present certificate and renews it when half of
// its life is over.
func (a *Authority) serverCertificate(ctx context.Context) (*tls.Certificate, error) {
	now := a.now()
	a.mu.Lock()
	s := a.server
	a.mu.Unlock()
	if s != nil && !now.Before(s.from) && now.Before(s.until) {
		return &s.certificate, nil
	}
	s, err := a.makeServerCertificate(ctx, now)
	if err != nil {
		a.log.Error("the server certificate cannot be renewed", "event", "site-server-certificate", "reason", err)
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server = s
	return &s.certificate, nil
}

func (a *Authority) makeServerCertificate(ctx context.Context, now time.Time) (*serverCertificate, error) {
	by, err := a.issuingCertificate(ctx)
	if err != nil {
		return nil, err
	}
	key, err := newECKey()
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Postern Site Authority"},
		NotBefore: now.Add(-backdate), NotAfter: earlier(now.Add(leafLife), by.certificate.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, n := range a.names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	leaf, err := issue(template, key, by)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	c := leaf.certificate
	return &serverCertificate{
		certificate: tls.Certificate{Certificate: [][]byte{c.Raw, by.certificate.Raw}, PrivateKey: key, Leaf: c},
		from:        c.NotBefore, until: now.Add(c.NotAfter.Sub(now) / 2),
	}, nil
}
