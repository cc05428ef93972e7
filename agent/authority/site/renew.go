package site

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"postern/agent/authority/jws"
)

// peer returns the certificate that the caller proved to hold in the
// handshake, where it was verified against our own CA; nil if there was none.
func peer(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0]
}

var errNoCertificate = errors.New("no client certificate")

// stepHolder is holderOf with step-ca's answers. A connection may outlive its
// certificate, so the dates are looked at on every request.
func (t *tx) stepHolder(cert *x509.Certificate) (holder, error) {
	h, err := t.holderOf(cert.SerialNumber.String())
	switch {
	case err == nil && !slices.Equal(h.certificate.DER, cert.Raw):
		return holder{}, unauthorized(errUnknown)
	case errors.Is(err, errExpired):
		return h, stepError{
			status: http.StatusUnauthorized, reason: err,
			message: fmt.Sprintf("The request lacked necessary authorization to be completed: certificate expired on %s", cert.NotAfter),
		}
	case isEnded(err):
		return h, unauthorized(err)
	}
	return h, err
}

// isEnded says whether err is a refusal and not a fault of ours.
func isEnded(err error) bool {
	return slices.ContainsFunc([]error{errUnknown, errRevoked, errExpired, errNotYet, errDeleted, errDisabled, errUnassigned, errDisconnected},
		func(end error) bool { return errors.Is(err, end) })
}

func (a *Authority) serveRenew(w http.ResponseWriter, r *http.Request) {
	cert := peer(r)
	if cert == nil {
		err := error(badRequest("missing client certificate"))
		if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			err = a.refuseBearer(bearer)
		}
		a.stepRefuse(w, r, Entry{Action: "renew"}, err)
		return
	}
	a.reissue(w, r, cert, "renew", cert.PublicKey)
}

// refuseBearer answers step-ca's way of renewing without a TLS client
// certificate, which is meant for expired ones. It is never granted here:
// Expired is left with a claim. What is wrong is said as step-ca says it.
func (a *Authority) refuseBearer(bearer string) error {
	invalid := stepError{status: http.StatusUnauthorized, message: "error validating renew token"}
	token, err := jws.Parse(bearer, maxAssertion)
	if err != nil || len(token.Header.X5CInsecure) == 0 {
		return invalid
	}
	der, err := base64.StdEncoding.DecodeString(token.Header.X5CInsecure[0])
	if err != nil {
		return invalid
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil || token.Verify(cert.PublicKey, jws.ES256, jws.PS256, jws.RS256) != nil {
		return invalid
	}
	err = a.view(func(t *tx) error {
		_, err := t.stepHolder(cert)
		return err
	})
	switch {
	case err == nil:
		return unauthorized(errors.New("no certificate is renewed by a bearer token"))
	case errors.Is(err, errUnknown):
		return invalid
	}
	return err
}

func (a *Authority) serveRekey(w http.ResponseWriter, r *http.Request) {
	cert := peer(r)
	if cert == nil {
		a.stepRefuse(w, r, Entry{Action: "rekey"}, badRequest("missing client certificate"))
		return
	}
	var req struct {
		CSR certificateRequest `json:"csr"`
	}
	err := decodeBody(r, &req)
	if err == nil {
		err = req.CSR.check()
	}
	if err == nil {
		err = checkKey(req.CSR.PublicKey)
	}
	if err != nil {
		a.stepRefuse(w, r, Entry{Action: "rekey", Serial: cert.SerialNumber.String()}, err)
		return
	}
	a.reissue(w, r, cert, "rekey", req.CSR.PublicKey)
}

func (a *Authority) reissue(w http.ResponseWriter, r *http.Request, cert *x509.Certificate, action string, pub crypto.PublicKey) {
	leaf, ca, err := a.renew(r.Context(), cert, action, pub, r.RemoteAddr)
	if err != nil {
		a.stepRefuse(w, r, Entry{Action: action, Serial: cert.SerialNumber.String(), ClientID: cut(cert.Subject.CommonName, 36)}, err)
		return
	}
	writeChain(w, leaf, ca)
}

// renew issues a certificate with the names and the lifetime of cert over pub;
// less, if certificates have been made shorter since.
// cert itself stays valid: its holder has not got the new one yet.
func (a *Authority) renew(ctx context.Context, cert *x509.Certificate, action string, pub crypto.PublicKey, source string) (leaf, ca *x509.Certificate, err error) {
	by, err := a.issuingCertificate(ctx)
	if err != nil {
		return nil, nil, err
	}
	var machine machineRecord
	err = a.update(ctx, func(t *tx) error {
		h, err := t.stepHolder(cert)
		if err != nil {
			return err
		}
		machine = h.machine
		start := t.now.Add(-backdate)
		life := min(cert.NotAfter.Sub(cert.NotBefore), a.opts.CertificateLife+backdate)
		template, err := leafTemplate(cert.Subject.CommonName, asStrings(cert.URIs), start, earlier(start.Add(life), by.certificate.NotAfter))
		if err != nil {
			return err
		}
		if leaf, err = sign(template, pub, by); err != nil {
			return err
		}
		if err := t.seen(&h); err != nil {
			return err
		}
		holding, err := t.holding(h.machine.VMID, h.identity.ClientID)
		if err != nil {
			return err
		}
		t.note(Entry{
			Action: action, Principal: h.identity.ObjectID, Name: h.identity.Name, Source: source, Scope: h.identity.ResourceID, Machine: h.machine.Name,
			ClientID: h.identity.ClientID, Serial: leaf.SerialNumber.String(), Expires: leaf.NotAfter,
		})
		return t.record(&holding, leaf, action, h.certificate.Serial)
	})
	if err == nil {
		a.touch(ctx, machine.VMID)
	}
	return leaf, by.certificate, err
}

// The reason codes of RFC 5280 section 5.3.1 that mean something here.
const (
	cessationOfOperation = 5
	reasonCodeMost       = 10
)

type revokeRequest struct {
	Serial     string `json:"serial"`
	OTT        string `json:"ott"`
	ReasonCode int    `json:"reasonCode"`
	Passive    bool   `json:"passive"`
}

func (r *revokeRequest) check() error {
	if r.Serial == "" {
		return badRequest("missing serial")
	}
	n, ok := new(big.Int), false
	if len(r.Serial) <= 64 {
		n, ok = n.SetString(r.Serial, 0)
	}
	switch {
	case !ok:
		return badRequest("'%s' is not a valid serial number - use a base 10 representation or a base 16 representation with '0x' prefix", cut(r.Serial, 64))
	case r.ReasonCode < 0 || r.ReasonCode > reasonCodeMost:
		return badRequest("reasonCode out of bounds")
	case !r.Passive:
		return stepError{status: http.StatusNotImplemented}
	}
	r.Serial = n.String()
	return nil
}

// serveRevoke lets a certificate revoke itself. Operators revoke through the
// administration; a one-time token for it is not issued, so none is taken.
func (a *Authority) serveRevoke(w http.ResponseWriter, r *http.Request) {
	var req revokeRequest
	cert := peer(r)
	err := decodeBody(r, &req)
	if err == nil {
		err = req.check()
	}
	switch {
	case err != nil:
	case req.OTT != "":
		err = unauthorized(errors.New("no one-time token revokes"))
	case cert == nil:
		err = badRequest("missing ott or client certificate")
	case req.Serial != cert.SerialNumber.String():
		err = forbidden("request serial number %q and certificate serial number %q do not match", req.Serial, cert.SerialNumber.String())
	default:
		err = a.revokeSelf(r.Context(), cert, req.ReasonCode, r.RemoteAddr)
	}
	if err != nil {
		e := Entry{Action: "revoke", Serial: req.Serial}
		if cert != nil {
			e.ClientID = cut(cert.Subject.CommonName, 36)
		}
		a.stepRefuse(w, r, e, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// revokeSelf revokes the certificate that was presented. If it was the last
// of the machine's own identity, or the holder says that it ceases to operate,
// the machine has disconnected: its record stays, marked, and the name may be
// connected again.
func (a *Authority) revokeSelf(ctx context.Context, cert *x509.Certificate, code int, source string) error {
	return a.update(ctx, func(t *tx) error {
		c, err := load[certificateRecord](t, bucketCertificate, cert.SerialNumber.String())
		if errors.Is(err, errAbsent) {
			return unauthorized(errUnknown)
		}
		if err != nil {
			return err
		}
		if !c.Revoked.IsZero() {
			return badRequest("certificate with serial number '%s' is already revoked", c.Serial)
		}
		h, err := t.stepHolder(cert)
		if err != nil {
			return err
		}
		if err := t.revoke(&h.certificate, fmt.Sprintf("by its holder, reason %d", code)); err != nil {
			return err
		}
		t.note(Entry{
			Action: "revoke", Principal: h.identity.ObjectID, Name: h.identity.Name, Source: source, Scope: h.identity.ResourceID, Machine: h.machine.Name,
			ClientID: h.identity.ClientID, Serial: c.Serial, Reason: h.certificate.Reason,
		})
		if err := t.revokeLost(h); err != nil || h.identity.Kind != systemAssigned {
			return err
		}
		return t.disconnected(h, code, source)
	})
}

// revokeLost revokes the certificates that were issued before h's and never
// used: their answers were lost, so that nobody is left who could revoke them.
func (t *tx) revokeLost(h holder) error {
	holding, err := t.holding(h.machine.VMID, h.identity.ClientID)
	if err != nil {
		return err
	}
	live, err := t.liveCertificates(holding)
	for _, c := range live {
		if c.Seen.IsZero() && c.Issued.Before(h.certificate.Issued) {
			err = errors.Join(err, t.revoke(&c, "lost on its way"))
		}
	}
	return err
}

func (t *tx) disconnected(h holder, code int, source string) error {
	holding, err := t.holding(h.machine.VMID, h.identity.ClientID)
	if err != nil {
		return err
	}
	live, err := t.liveCertificates(holding)
	if err != nil || len(live) > 0 && code != cessationOfOperation {
		return err
	}
	m := h.machine
	for _, clientID := range append([]string{m.System}, m.Holds...) {
		ended, err := t.holding(m.VMID, clientID)
		if err != nil {
			return err
		}
		if err := t.revokeAll(&ended, h.identity.ObjectID, m.Name, "machine disconnected"); err != nil {
			return err
		}
	}
	m.Disconnected = t.now.UTC()
	t.note(Entry{Action: "machine-disconnected", Principal: h.identity.ObjectID, Source: source, Scope: m.ResourceID, Machine: m.Name, ClientID: m.System})
	return t.bump(&m)
}

// RevokeMachine revokes every certificate of a machine, those of its assigned
// identities too. The record stays; only a claim with Reonboard brings the
// machine back. ErrNotFound.
func (a *Authority) RevokeMachine(ctx context.Context, name string) error {
	return a.update(ctx, func(t *tx) error {
		m, err := t.machineByName(name)
		if err != nil {
			return err
		}
		for _, clientID := range append([]string{m.System}, m.Holds...) {
			h, err := t.holding(m.VMID, clientID)
			if err != nil {
				return err
			}
			if err := t.revokeAll(&h, t.by, m.Name, "revoked by an operator"); err != nil {
				return err
			}
		}
		t.note(Entry{Action: "machine-revoked", Principal: t.by, Scope: m.ResourceID, Machine: m.Name, ClientID: m.System})
		return t.bump(&m)
	})
}

// RevokeCertificate revokes one certificate by its serial number, decimal or
// with 0x. Errors: ErrInvalid, ErrNotFound; ErrExists if it is revoked already.
func (a *Authority) RevokeCertificate(ctx context.Context, serial string) error {
	n, ok := new(big.Int), false
	if len(serial) <= 64 {
		n, ok = n.SetString(serial, 0)
	}
	if !ok {
		return fmt.Errorf("serial %q: %w", cut(serial, 64), ErrInvalid)
	}
	return a.update(ctx, func(t *tx) error {
		c, err := load[certificateRecord](t, bucketCertificate, n.String())
		if err != nil {
			return notFound("certificate", n.String(), err)
		}
		if !c.Revoked.IsZero() {
			return fmt.Errorf("certificate %s: %w: revoked at %s", c.Serial, ErrExists, c.Revoked.Format(time.RFC3339))
		}
		t.note(Entry{Action: "certificate-revoked", Principal: t.by, ClientID: c.ClientID, Serial: c.Serial, Reason: "revoked by an operator"})
		return t.revoke(&c, "revoked by an operator")
	})
}
