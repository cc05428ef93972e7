package site

import (
	"crypto/sha1" //nolint:gosec // x5t is SHA-1 by RFC 7515; it only finds a certificate
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"
)

func holdingKey(vmID, clientID string) string { return vmID + "/" + clientID }

func (t *tx) holding(vmID, clientID string) (holdingRecord, error) {
	return load[holdingRecord](t, bucketHolding, holdingKey(vmID, clientID))
}

func (t *tx) saveHolding(h holdingRecord) error {
	return save(t, bucketHolding, holdingKey(h.VMID, h.ClientID), h)
}

// record writes an issued certificate into its holding. Certificates beyond
// the bounds go: the oldest valid ones but the one that was presented are
// revoked, the oldest of those that are over are forgotten.
func (t *tx) record(h *holdingRecord, cert *x509.Certificate, by, presented string) error {
	serial := cert.SerialNumber.String()
	r := certificateRecord{
		Serial: serial, DER: cert.Raw, VMID: h.VMID, ClientID: h.ClientID,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Issued: t.now.UTC(), By: by,
	}
	if err := save(t, bucketCertificate, serial, r); err != nil {
		return err
	}
	for _, thumb := range thumbprints(cert.Raw) {
		if err := save(t, bucketThumbprint, thumb, serial); err != nil {
			return err
		}
	}
	h.Serials = append(h.Serials, serial)
	if err := t.bound(h, serial, presented); err != nil {
		return err
	}
	return errors.Join(t.saveHolding(*h), t.sweepEnded())
}

func (t *tx) bound(h *holdingRecord, newest, presented string) error {
	var live, over []certificateRecord
	for _, serial := range h.Serials {
		c, err := load[certificateRecord](t, bucketCertificate, serial)
		if err != nil {
			return err
		}
		if c.live(t.now) {
			live = append(live, c)
		} else {
			over = append(over, c)
		}
	}
	for excess := len(live) - maxLive; excess > 0; excess-- {
		i := slices.IndexFunc(live, func(c certificateRecord) bool { return c.Serial != newest && c.Serial != presented })
		if err := t.revoke(&live[i], "superseded"); err != nil {
			return err
		}
		live = slices.Delete(live, i, i+1)
	}
	for ; len(over) > maxKept; over = over[1:] {
		if err := t.forgetCertificate(over[0]); err != nil {
			return err
		}
		h.Serials = slices.DeleteFunc(h.Serials, func(s string) bool { return s == over[0].Serial })
	}
	return nil
}

func (t *tx) forgetCertificate(c certificateRecord) error {
	for _, thumb := range thumbprints(c.DER) {
		if err := drop(t, bucketThumbprint, thumb); err != nil {
			return err
		}
	}
	return drop(t, bucketCertificate, c.Serial)
}

// live reports whether the certificate would be accepted at now, all else
// being well.
func (c certificateRecord) live(now time.Time) bool {
	return c.Revoked.IsZero() && !now.After(c.NotAfter)
}

func (t *tx) revoke(c *certificateRecord, reason string) error {
	c.Revoked, c.Reason = t.now.UTC(), reason
	return save(t, bucketCertificate, c.Serial, *c)
}

// revokeAll revokes the certificates of a holding that are not revoked yet and
// withdraws its one-time token.
func (t *tx) revokeAll(h *holdingRecord, by, machine, reason string) error {
	for _, serial := range h.Serials {
		c, err := load[certificateRecord](t, bucketCertificate, serial)
		if err != nil {
			return err
		}
		if !c.Revoked.IsZero() {
			continue
		}
		if err := t.revoke(&c, reason); err != nil {
			return err
		}
		t.note(Entry{Action: "certificate-revoked", Principal: by, Machine: machine, ClientID: h.ClientID, Serial: serial, Reason: reason})
	}
	if h.Claim != "" {
		if err := drop(t, bucketClaim, h.Claim); err != nil {
			return err
		}
		h.Claim = ""
	}
	return t.saveHolding(*h)
}

// removeHolding ends an assignment: its certificates are revoked. They are
// remembered for a while, so that their holder hears that the assignment ended
// and not that he is a stranger.
func (t *tx) removeHolding(m machineRecord, clientID, by, reason string) error {
	h, err := t.holding(m.VMID, clientID)
	if err != nil {
		return err
	}
	if err := t.revokeAll(&h, by, m.Name, reason); err != nil {
		return err
	}
	for _, serial := range h.Serials {
		c, err := load[certificateRecord](t, bucketCertificate, serial)
		if err != nil {
			return err
		}
		if err := save(t, bucketEnded, endedKey(c), c.Serial); err != nil {
			return err
		}
	}
	return drop(t, bucketHolding, holdingKey(m.VMID, clientID))
}

func endedKey(c certificateRecord) string {
	return fmt.Sprintf("%020d/%s", c.NotAfter.Unix(), c.Serial)
}

// sweepEnded forgets some certificates of ended assignments that have been
// over for a month. All of them are revoked: to forget one changes the reason
// of its refusal, never the refusal.
func (t *tx) sweepEnded() error {
	const remembered, atOnce = 30 * 24 * time.Hour, 16
	var old []certificateRecord
	err := each(t, bucketEnded, func(_, serial string) error {
		c, err := load[certificateRecord](t, bucketCertificate, serial)
		if err != nil {
			return err
		}
		if len(old) == atOnce || t.now.Before(c.NotAfter.Add(remembered)) {
			return errEnough
		}
		old = append(old, c)
		return nil
	})
	for _, c := range old {
		err = errors.Join(err, t.forgetCertificate(c), drop(t, bucketEnded, endedKey(c)))
	}
	return err
}

// allowEnroll lets a machine fetch the certificate of an assigned identity,
// from the present generation of its list on. A holding with a valid
// certificate is left alone unless always is set.
func (t *tx) allowEnroll(m machineRecord, clientID string, always bool) error {
	h, err := t.holding(m.VMID, clientID)
	if err != nil {
		return err
	}
	if !always {
		live, err := t.liveCertificates(h)
		if err != nil || len(live) > 0 {
			return err
		}
	}
	h.Enroll, h.Generation = true, m.Generation
	return t.saveHolding(h)
}

func (t *tx) liveCertificates(h holdingRecord) ([]certificateRecord, error) {
	var live []certificateRecord
	for _, serial := range h.Serials {
		c, err := load[certificateRecord](t, bucketCertificate, serial)
		if err != nil {
			return nil, err
		}
		if c.live(t.now) {
			live = append(live, c)
		}
	}
	return live, nil
}

// undelivered returns the valid certificates of a holding if not one of them
// was ever used: the answer to the sign request may have been lost on its way.
func (t *tx) undelivered(h holdingRecord) ([]certificateRecord, error) {
	live, err := t.liveCertificates(h)
	for _, c := range live {
		if !c.Seen.IsZero() {
			return nil, err
		}
	}
	return live, err
}

// mayEnroll reports whether a one-time token may be handed out for h to a
// machine that has applied the list up to a generation: an operator allowed it
// and nothing was fetched since; or something was fetched, never used, and the
// machine does not know of it. A certificate that lapsed is left to operators.
func (t *tx) mayEnroll(h holdingRecord, applied uint64) (bool, error) {
	if h.Enroll || applied >= h.Generation {
		return h.Enroll, nil
	}
	lost, err := t.undelivered(h)
	return len(lost) > 0, err
}

// delivered marks the certificates of h as arrived if the machine has applied
// the list with which it fetched them.
func (t *tx) delivered(h holdingRecord, applied uint64) error {
	if h.Enroll || applied < h.Generation {
		return nil
	}
	arrived, err := t.undelivered(h)
	for _, c := range arrived {
		c.Seen = t.now.UTC()
		err = errors.Join(err, save(t, bucketCertificate, c.Serial, c))
	}
	return err
}

// thumbprints are the keys under which a certificate is found.
func thumbprints(der []byte) []string {
	s256, s1 := sha256.Sum256(der), sha1.Sum(der) //nolint:gosec // see the import
	return []string{thumbKey("s256", s256[:]), thumbKey("s1", s1[:])}
}

func thumbKey(kind string, sum []byte) string {
	return kind + "/" + base64.RawURLEncoding.EncodeToString(sum)
}

// holder is who presents a certificate.
type holder struct {
	certificate certificateRecord
	machine     machineRecord
	identity    identityRecord
}

// holderOf finds who holds the certificate with the serial and checks that the
// certificate, the identity, the machine and the assignment stand, all of them
// now. It is the only way from a certificate to a right; each of its branches
// has a row in TestEndedCredentialsAreRefusedEverywhere. The holder is returned
// with the error where it is known, for the audit.
func (t *tx) holderOf(serial string) (holder, error) {
	var h holder
	var err error
	if h.certificate, err = load[certificateRecord](t, bucketCertificate, serial); err != nil {
		return h, absentAs(err, errUnknown)
	}
	if h.identity, err = load[identityRecord](t, bucketIdentity, h.certificate.ClientID); err != nil {
		return h, absentAs(err, errDeleted)
	}
	if h.machine, err = load[machineRecord](t, bucketMachine, h.certificate.VMID); err != nil {
		return h, absentAs(err, errDeleted)
	}
	if !h.identity.Deleted.IsZero() {
		return h, errDeleted
	}
	if _, err := t.holding(h.machine.VMID, h.identity.ClientID); err != nil {
		return h, absentAs(err, errUnassigned)
	}
	switch c := h.certificate; {
	case !c.Revoked.IsZero():
		return h, errRevoked
	case t.now.After(c.NotAfter):
		return h, errExpired
	case t.now.Before(c.NotBefore):
		return h, errNotYet
	case !h.machine.Disconnected.IsZero():
		return h, errDisconnected
	case h.identity.Disabled:
		return h, errDisabled
	}
	return h, nil
}

func absentAs(err, as error) error {
	if errors.Is(err, errAbsent) {
		return as
	}
	return err
}

// seen marks the certificate as used: its answer was not lost.
func (t *tx) seen(h *holder) error {
	if !h.certificate.Seen.IsZero() {
		return nil
	}
	h.certificate.Seen = t.now.UTC()
	return save(t, bucketCertificate, h.certificate.Serial, h.certificate)
}
