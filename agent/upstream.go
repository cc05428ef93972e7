package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"

	"postern/agent/authority"
	"postern/agent/authority/oauth"
	"postern/agent/authority/stepca"
	"postern/agent/config"
	"postern/agent/control"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/token"
	"postern/store"
)

// upstream builds the drivers for the authority that the device belongs to.
// Safe for concurrent use.
type upstream struct {
	cfg   config.Config
	clock *lifecycle.Clock
	// dial replaces TCP in simulations; nil for TCP.
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	record store.DeviceRecord // what issuer was built for
	issuer token.Issuer
}

// client says whom a connection upstream believes: the roots of the file if one
// is named, else the pinned root alone. Without either nobody is believed.
func (u *upstream) client(rootPEM, rootsFile string) (authority.Config, error) {
	c := authority.Config{Clock: u.clock, Dial: u.dial}
	if err := u.proxy(&c); err != nil {
		return c, err
	}
	if rootsFile != "" {
		pem, err := os.ReadFile(rootsFile)
		if err != nil {
			return c, control.NewFault(control.ExitUsage, "roots-file", "ls -l "+rootsFile, "roots: %w", err)
		}
		rootPEM = string(pem)
	}
	if rootPEM == "" {
		return c, nil
	}
	c.Roots = x509.NewCertPool()
	if !c.Roots.AppendCertsFromPEM([]byte(rootPEM)) {
		return c, control.NewFault(control.ExitUsage, "roots-file", "openssl x509 -in "+rootsFile+" -noout", "roots: no certificate in the PEM")
	}
	return c, nil
}

func (u *upstream) proxy(c *authority.Config) error {
	address := u.cfg.Proxy
	if address == "environment" {
		address = os.Getenv("HTTPS_PROXY")
		if address == "" {
			address = os.Getenv("https_proxy")
		}
	}
	if address == "" {
		return nil
	}
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" {
		return control.NewFault(control.ExitUsage, "proxy", "postern config print", "proxy: the address is not a URL")
	}
	c.Proxy = parsed
	if file := u.cfg.ProxyCredentialsFile; file != "" {
		c.ProxyAuth = func() string {
			secret, err := secretFromFile(file)
			if err != nil {
				return "" // the proxy's 407 names the missing credentials
			}
			return secret.Reveal()
		}
	}
	return nil
}

// Authority builds the driver for rec. It contacts nobody.
func (u *upstream) Authority(rec store.DeviceRecord) (credential.Authority, error) {
	c, err := u.client(rec.RootPEM, u.cfg.Authority.CAFile)
	if err != nil {
		return nil, err
	}
	made, err := stepca.New(stepca.Config{URL: rec.AuthorityURL, Clients: authority.NewClients(c), Clock: u.clock})
	switch {
	case err != nil:
		return nil, err
	case u.cfg.Authority.Assignments:
		return made, nil
	}
	return unasked{made, made}, nil
}

// unasked is an authority that is not asked which identities are ours.
type unasked struct {
	credential.Authority
	credential.Heartbeater
}

// use makes rec the record whose issuer answers from now on.
func (u *upstream) use(rec store.DeviceRecord) (token.Issuer, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.issuer != nil && u.record.AuthorityURL == rec.AuthorityURL && u.record.RootPEM == rec.RootPEM && u.record.Issuer == rec.Issuer {
		return u.issuer, nil
	}
	t := u.cfg.Token
	foreign := t.Preset != "" || !sameHost(rec.AuthorityURL, t.Issuer) || !sameHost(rec.AuthorityURL, t.TokenURL)
	root := rec.RootPEM
	if foreign {
		root = "" // the pinned root speaks for our certificate authority alone
	}
	c, err := u.client(root, t.Roots)
	if err != nil {
		return nil, err
	}
	c.System = foreign && t.Roots == ""
	issuer := t.Issuer
	if issuer == "" {
		issuer = rec.Issuer
	}
	if issuer == "" && t.TokenURL == "" && t.Preset == "" {
		issuer = rec.AuthorityURL // a site authority is both
	}
	made, err := oauth.New(oauth.Config{
		Issuer: issuer, TokenURL: t.TokenURL, Preset: t.Preset, Tenant: t.Tenant, Cloud: t.Cloud,
		Auth: t.Auth, Alg: t.Alg, AssertionAud: t.AssertionAud, ResourceParam: t.ResourceParam, SendX5C: t.SendX5C,
		Clients: authority.NewClients(c), Clock: u.clock,
	})
	if err != nil {
		return nil, fmt.Errorf("token issuer: %w", err)
	}
	u.record, u.issuer = rec, made
	return made, nil
}

// sameHost reports whether b is empty or on the host and port of a.
func sameHost(a, b string) bool {
	if b == "" {
		return true
	}
	left, err := url.Parse(a)
	if err != nil {
		return false
	}
	right, err := url.Parse(b)
	return err == nil && authority.Address(left) != "" && authority.Address(left) == authority.Address(right)
}

// reread forgets the issuer, whose roots may stand in a file that was changed.
// With a file that cannot be used everything stays as it was.
func (u *upstream) reread() error {
	for _, file := range nonEmpty([]string{u.cfg.Authority.CAFile, u.cfg.Token.Roots}) {
		if _, err := u.client("", file); err != nil {
			return err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.issuer = nil
	return nil
}

// root fetches the root certificate that a claim's fingerprint names.
func (u *upstream) root(ctx context.Context, base, sha256 string) (string, error) {
	c, err := u.client("", "")
	if err != nil {
		return "", err
	}
	return stepca.Root(ctx, c, base, sha256)
}

// issue is a token.Issuer that follows the device's enrolment.
type issuing struct {
	upstream *upstream
	record   func() (store.DeviceRecord, bool)
}

// Issue implements token.Issuer.
func (i issuing) Issue(ctx context.Context, with *credential.Credential, resource string) (token.Issued, error) {
	rec, ok := i.record()
	if !ok {
		return token.Issued{}, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "token", Reason: "this device is not connected"}
	}
	issuer, err := i.upstream.use(rec)
	if err != nil {
		return token.Issued{}, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "token", Err: err}
	}
	return issuer.Issue(ctx, with, resource)
}
