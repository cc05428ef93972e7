//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

const clientID = "7b1e4c1c-0000-4000-8000-000000000001"

// authority is the certificate authority of the guest. Its key is the same at
// every boot, so that it renews what it issued before the cut.
type authority struct {
	key    *ecdsa.PrivateKey
	root   *x509.Certificate
	clock  *lifecycle.Clock
	serial int64
	asked  func() error // told before a renewal is answered
}

func newAuthority(clock *lifecycle.Clock, serial int64) (*authority, error) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{0x42}, 32))
	if err != nil {
		return nil, err
	}
	now := clock.Now().Wall
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root of the power-cut guest"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(30, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	return &authority{key: key, root: root, clock: clock, serial: serial}, err
}

func (a *authority) rootPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}))
}

// Enroll implements credential.Authority.
func (a *authority) Enroll(_ context.Context, signer crypto.Signer, _ store.Secret) ([]*x509.Certificate, error) {
	return a.issue(signer.Public())
}

// Renew implements credential.Authority.
func (a *authority) Renew(_ context.Context, _ *credential.Credential, pending crypto.Signer) ([]*x509.Certificate, error) {
	if err := a.asked(); err != nil {
		return nil, err
	}
	return a.issue(pending.Public())
}

// Retire implements credential.Authority.
func (a *authority) Retire(context.Context, *credential.Credential) error { return nil }

func (a *authority) issue(pub crypto.PublicKey) ([]*x509.Certificate, error) {
	a.serial++
	now := a.clock.Now().Wall
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: clientID},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(90 * lifecycle.Day),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.root, pub, a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return []*x509.Certificate{leaf, a.root}, err
}
