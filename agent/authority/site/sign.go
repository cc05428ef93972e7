package site

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// chainResponse is step-ca's answer to sign, renew and rekey.
type chainResponse struct {
	Certificate string     `json:"crt"`
	CA          string     `json:"ca"`
	Chain       []string   `json:"certChain"`
	TLS         tlsOptions `json:"tlsOptions"`
}

// tlsOptions are step-ca's defaults; clients ignore them.
type tlsOptions struct {
	CipherSuites  []string `json:"cipherSuites"`
	MinVersion    float64  `json:"minVersion"`
	MaxVersion    float64  `json:"maxVersion"`
	Renegotiation bool     `json:"renegotiation"`
}

func writeChain(w http.ResponseWriter, leaf, ca *x509.Certificate) {
	writeJSON(w, http.StatusCreated, chainResponse{
		Certificate: certPEM(leaf), CA: certPEM(ca), Chain: []string{certPEM(leaf), certPEM(ca)},
		TLS: tlsOptions{
			CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
			MinVersion:   1.2, MaxVersion: 1.3,
		},
	})
}

type signRequest struct {
	CSR      certificateRequest `json:"csr"`
	OTT      string             `json:"ott"`
	NotAfter timeOrDuration     `json:"notAfter"`
}

// serveSign trades a one-time token and a CSR for a certificate.
func (a *Authority) serveSign(w http.ResponseWriter, r *http.Request) {
	var req signRequest
	err := decodeBody(r, &req)
	if err == nil {
		err = req.CSR.check()
	}
	if err == nil && req.OTT == "" {
		err = badRequest("missing ott")
	}
	if err != nil {
		a.stepRefuse(w, r, Entry{Action: "sign"}, err)
		return
	}
	c, err := a.readOneTime(req.OTT)
	if err != nil {
		a.stepRefuse(w, r, Entry{Action: "sign"}, unauthorized(err))
		return
	}
	leaf, ca, err := a.signOnce(r.Context(), c, req, r.RemoteAddr)
	if err != nil {
		a.stepRefuse(w, r, Entry{Action: "sign", ClientID: c.Subject, JTI: c.ID}, err)
		return
	}
	writeChain(w, leaf, ca)
}

// signOnce uses a one-time token: the token is spent, the machine or the
// enrolment made, the certificate recorded and the audit written in one
// commit. A refusal leaves the token as it was.
func (a *Authority) signOnce(ctx context.Context, c oneTime, req signRequest, source string) (leaf, ca *x509.Certificate, err error) {
	by, err := a.issuingCertificate(ctx)
	if err != nil {
		return nil, nil, err
	}
	err = a.update(ctx, func(t *tx) error {
		claim, err := t.unusedClaim(c)
		if err != nil {
			return err
		}
		if err := errors.Join(checkNames(req.CSR.CertificateRequest, c.Subject, c.SANs), checkKey(req.CSR.PublicKey)); err != nil {
			return err
		}
		end, err := req.NotAfter.end(t.now, a.opts.CertificateLife)
		if err != nil {
			return err
		}
		m, h, err := t.spend(claim)
		if err != nil {
			return err
		}
		template, err := leafTemplate(c.Subject, c.SANs, t.now.Add(-backdate), earlier(end, by.certificate.NotAfter))
		if err != nil {
			return err
		}
		if leaf, err = sign(template, req.CSR.PublicKey, by); err != nil {
			return err
		}
		t.note(Entry{
			Action: "sign", Principal: claim.ObjectID, Source: source, Scope: m.ResourceID, Machine: m.Name, ClientID: claim.ClientID,
			JTI: claim.JTI, Serial: leaf.SerialNumber.String(), Expires: leaf.NotAfter, Reason: claim.Kind,
		})
		return t.record(&h, leaf, "sign", "")
	})
	return leaf, by.certificate, err
}

// unusedClaim finds the record of a one-time token and checks that it can
// still be used. The names in the token must be the record's, so that a token
// signed by the same key for another purpose buys nothing.
func (t *tx) unusedClaim(c oneTime) (claimRecord, error) {
	claim, err := load[claimRecord](t, bucketClaim, c.ID)
	switch {
	case errors.Is(err, errAbsent):
		return claim, unauthorized(errors.New("one-time token is not known: used, withdrawn or swept"))
	case err != nil:
		return claim, err
	case !claim.Used.IsZero():
		return claim, unauthorized(errors.New("one-time token was used at " + claim.Used.Format(time.RFC3339)))
	case c.Subject != claim.ClientID || !sameSet(c.SANs, sansFor(claim.ObjectID, claim.VMID)):
		return claim, unauthorized(errors.New("one-time token: names are not those it was made for"))
	}
	return claim, nil
}

// spend uses the claim up and does what it is for. It returns the holding
// that the certificate belongs to.
func (t *tx) spend(claim claimRecord) (machineRecord, holdingRecord, error) {
	var m machineRecord
	var err error
	switch claim.Kind {
	case claimOnboard:
		m, err = t.register(claim)
	case claimReonboard:
		m, err = t.reconnect(claim)
	default:
		m, err = t.enroll(claim)
	}
	if err != nil {
		return m, holdingRecord{}, err
	}
	if claim.Kind == claimEnroll {
		err = drop(t, bucketClaim, claim.JTI)
	} else {
		claim.Used = t.now.UTC()
		err = save(t, bucketClaim, claim.JTI, claim)
	}
	if err != nil {
		return m, holdingRecord{}, err
	}
	h, err := t.holding(m.VMID, claim.ClientID)
	return m, h, err
}

// enroll prepares the first certificate of an assigned identity on a machine,
// or the next one after an operator allowed it: whatever was valid before is
// revoked, so that after a one-time token exactly one certificate is. (Its
// token was withdrawn if the assignment, the identity or the machine ended, or
// a newer one was handed out.)
func (t *tx) enroll(claim claimRecord) (machineRecord, error) {
	m, err := load[machineRecord](t, bucketMachine, claim.VMID)
	if err != nil {
		return m, absentAs(err, unauthorized(errDeleted))
	}
	h, err := t.holding(claim.VMID, claim.ClientID)
	if err != nil {
		return m, absentAs(err, unauthorized(errUnassigned))
	}
	i, err := load[identityRecord](t, bucketIdentity, claim.ClientID)
	if err != nil {
		return m, err
	}
	if i.Disabled {
		return m, unauthorized(errDisabled)
	}
	h.Enroll, h.Claim = false, ""
	return m, t.revokeAll(&h, "authority", m.Name, "enrolled again")
}

// decodeBody reads a JSON body as step-ca does: the first value counts.
func decodeBody(r *http.Request, v any) error {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		if large, ok := tooLarge(err); ok {
			return large
		}
		return badRequest("error decoding json")
	}
	_, _ = io.Copy(io.Discard, r.Body) // bounded; lets the connection be used again
	return nil
}

// stepRefuse answers err in step-ca's form and writes it into the audit. An
// error without a status of its own is a fault of ours: 500, and the log.
// e.ClientID must be proven, by a certificate or a signed token.
func (a *Authority) stepRefuse(w http.ResponseWriter, r *http.Request, e Entry, err error) {
	var step stepError
	if !errors.As(err, &step) {
		a.log.Error("a request failed", "event", "site-error", "action", e.Action, "reason", err)
		step = stepError{status: http.StatusInternalServerError, reason: err}
	}
	if step.status != http.StatusInternalServerError {
		e.Reason, e.Source = cut(step.Error(), 256), r.RemoteAddr
		a.deny(r.Context(), e, strconv.Itoa(step.status)+" "+e.ClientID)
	}
	step.write(w)
}
