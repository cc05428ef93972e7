package stepca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"postern/agent/authority"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

// Config says which authority to speak to, and how.
type Config struct {
	URL     string             // base: https, host, optional port and path
	Clients *authority.Clients // with the pinned root alone
	Clock   *lifecycle.Clock
}

// Authority is the driver. It implements credential.Authority, Assigner and
// Heartbeater. It is immutable and safe for concurrent use.
type Authority struct {
	base    string
	host    string // "host:port" that may see our certificate
	clients *authority.Clients
	clock   *lifecycle.Clock
}

var (
	_ credential.Authority   = (*Authority)(nil)
	_ credential.Assigner    = (*Authority)(nil)
	_ credential.Heartbeater = (*Authority)(nil)
)

// New returns the driver. The error says what is wrong with the URL.
func New(c Config) (*Authority, error) {
	u, err := url.Parse(c.URL)
	if err != nil || authority.Address(u) == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("stepca: an authority is written https://host[:port]")
	}
	return &Authority{base: strings.TrimSuffix(u.String(), "/"), host: authority.Address(u), clients: c.Clients, clock: c.Clock}, nil
}

// Enroll trades a claim (a one-time token, see ParseClaim) for a certificate.
// The request names exactly the names in the claim, as step-ca demands.
func (a *Authority) Enroll(ctx context.Context, signer crypto.Signer, onboarding store.Secret) ([]*x509.Certificate, error) {
	const op = "stepca: sign"
	claim, err := ParseClaim(onboarding)
	if err != nil {
		return nil, &lifecycle.Error{Class: lifecycle.ClassDenied, Op: op, Err: err}
	}
	csr, err := request(signer, claim.Subject, claim.SANs)
	if err != nil {
		return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: op, Err: err}
	}
	resp, err := a.call(ctx, call{op: op, path: "/1.0/sign", body: map[string]string{
		"csr": csr, "ott": strings.TrimSpace(onboarding.Reveal()),
	}})
	if err != nil {
		return nil, err
	}
	if resp.Status != http.StatusCreated && resp.Status != http.StatusOK {
		return nil, signRefusal(op, resp)
	}
	return certificates(op, resp, signer.Public())
}

// Renew gets a certificate over pending's key with current's names: a rekey,
// or a plain renewal if pending is current's own key (rotate_key = false). The
// same pending key may be sent again when an answer was lost.
func (a *Authority) Renew(ctx context.Context, current *credential.Credential, pending crypto.Signer) ([]*x509.Certificate, error) {
	c := call{op: "stepca: renew", path: "/1.0/renew", with: current}
	if !sameKey(current.Leaf().PublicKey, pending.Public()) {
		csr, err := requestLike(pending, current.Leaf())
		if err != nil {
			return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "stepca: rekey", Err: err}
		}
		c = call{op: "stepca: rekey", path: "/1.0/rekey", with: current, body: map[string]string{"csr": csr}}
	}
	resp, err := a.call(ctx, c)
	if err != nil {
		return nil, a.afterAlert(ctx, c.op, err)
	}
	if resp.Status != http.StatusCreated && resp.Status != http.StatusOK {
		return nil, a.refusal(ctx, c.op, resp)
	}
	return certificates(c.op, resp, pending.Public())
}

// superseded is RFC 5280's reason for a certificate that has a successor.
const superseded = 4

// Retire revokes old by itself: step-ca lets a certificate revoke nothing but
// itself. One that is revoked already, or over, is done. A refusal is never of
// class Rejected, since it says nothing about the certificate in use.
func (a *Authority) Retire(ctx context.Context, old *credential.Credential) error {
	const op = "stepca: revoke"
	resp, err := a.call(ctx, call{op: op, path: "/1.0/revoke", with: old, body: map[string]any{
		"serial": old.Leaf().SerialNumber.String(), "reasonCode": superseded, "reason": "superseded", "passive": true,
	}})
	if err != nil {
		if alert, ok := authority.Alert(err); ok && (alert == authority.AlertCertificateExpired || alert == authority.AlertCertificateRevoked) {
			return nil
		}
		return err
	}
	said := strings.ToLower(message(resp))
	switch {
	case resp.Status == http.StatusOK, strings.Contains(said, "already revoked"), strings.Contains(said, "certificate expired"):
		return nil
	case resp.Status == http.StatusUnauthorized:
		// The old certificate is no longer believed, which is what was wanted.
		return nil
	case temporary(resp.Status):
		return transient(op, resp)
	}
	return denied(op, resp, nil)
}

// Heartbeat asks for the authority's health over TLS verified with the pinned
// root, without showing a certificate.
func (a *Authority) Heartbeat(ctx context.Context) error {
	_, err := a.health(ctx)
	return err
}

func (a *Authority) health(ctx context.Context) (*authority.Response, error) {
	const op = "stepca: health"
	resp, err := a.call(ctx, call{op: op, path: "/health", get: true})
	if err != nil {
		return nil, err
	}
	if resp.Status != http.StatusOK {
		return nil, transient(op, resp)
	}
	return resp, nil
}

// call is one request of the driver.
type call struct {
	op, path string
	get      bool
	body     any                    // JSON; nil: empty
	with     *credential.Credential // nil: no client certificate
	etag     string
	limit    int64
}

func (a *Authority) call(ctx context.Context, c call) (*authority.Response, error) {
	method, client := http.MethodPost, a.clients.Plain()
	if c.get {
		method = http.MethodGet
	}
	if c.with != nil {
		client = a.clients.With(c.with.TLS(), a.host)
	}
	var body []byte
	if c.body != nil {
		var err error
		if body, err = json.Marshal(c.body); err != nil {
			return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: c.op, Err: err}
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+c.path, bytes.NewReader(body))
	if err != nil {
		return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: c.op, Err: fmt.Errorf("request: %w", err)}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.etag != "" {
		req.Header.Set("If-None-Match", c.etag)
	}
	if c.limit == 0 {
		c.limit = authority.BodyLimit
	}
	return authority.Do(client, req, c.op, c.limit)
}

func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}
