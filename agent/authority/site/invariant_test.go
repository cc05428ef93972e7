package site

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// checkLedger finds what must never be in a ledger, at any commit: halves of a
// change, ids that were given out twice, two certificates where one may be.
func (a *Authority) checkLedger() error {
	return a.view(func(t *tx) error {
		c := ledgerCheck{tx: t, system: map[string]string{}, objects: map[string]string{}, held: map[string]bool{}}
		return errors.Join(c.machines(), c.identities(), c.holdings(), c.certificates(), c.claims(), c.audit())
	})
}

type ledgerCheck struct {
	*tx
	system  map[string]string // client id -> machine
	objects map[string]string // object id -> client id
	held    map[string]bool   // holdings that a machine names
}

func (c *ledgerCheck) machines() error {
	names := 0
	err := each(c.tx, bucketMachine, func(vmID string, m machineRecord) error {
		if vmID != m.VMID {
			return fmt.Errorf("machine %s stands under %s", m.VMID, vmID)
		}
		if at, err := load[string](c.tx, bucketMachineName, strings.ToLower(m.Name)); err != nil || at != vmID {
			return fmt.Errorf("machine %s is not found by name: %q %w", m.Name, at, err)
		}
		c.system[m.System] = m.VMID
		for _, clientID := range append([]string{m.System}, m.Holds...) {
			i, err := load[identityRecord](c.tx, bucketIdentity, clientID)
			if err != nil || !i.Deleted.IsZero() {
				return fmt.Errorf("machine %s names identity %s, deleted %v: %w", m.Name, clientID, i.Deleted, err)
			}
			if _, err := c.holding(vmID, clientID); err != nil {
				return fmt.Errorf("machine %s has no holding of %s: %w", m.Name, clientID, err)
			}
			c.held[holdingKey(vmID, clientID)] = true
		}
		return nil
	})
	return errors.Join(err, each(c.tx, bucketMachineName, func(string, string) error { names++; return nil }), differ("machine names", names, len(c.system)))
}

func (c *ledgerCheck) identities() error {
	named := 0
	err := each(c.tx, bucketIdentity, func(clientID string, i identityRecord) error {
		if other, there := c.objects[i.ObjectID]; there {
			return fmt.Errorf("object id %s belongs to %s and %s", i.ObjectID, other, clientID)
		}
		c.objects[i.ObjectID] = clientID
		if !i.Deleted.IsZero() {
			return nil
		}
		if i.Kind == systemAssigned && c.system[clientID] != i.VMID {
			return fmt.Errorf("system-assigned identity %s has machine %q, not %q", i.Name, c.system[clientID], i.VMID)
		}
		if i.Kind == userAssigned {
			named++
			if at, err := load[string](c.tx, bucketName, strings.ToLower(i.Name)); err != nil || at != clientID {
				return fmt.Errorf("identity %s is not found by name: %q %w", i.Name, at, err)
			}
		}
		return nil
	})
	n := 0
	return errors.Join(err, each(c.tx, bucketName, func(string, string) error { n++; return nil }), differ("identity names", n, named))
}

func (c *ledgerCheck) holdings() error {
	return each(c.tx, bucketHolding, func(key string, h holdingRecord) error {
		if !c.held[key] {
			return fmt.Errorf("holding %s belongs to no machine", key)
		}
		if h.Claim != "" {
			if claim, err := load[claimRecord](c.tx, bucketClaim, h.Claim); err != nil || claim.ClientID != h.ClientID || claim.VMID != h.VMID {
				return fmt.Errorf("holding %s names claim %s: %+v %w", key, h.Claim, claim, err)
			}
		}
		for _, serial := range h.Serials {
			r, err := load[certificateRecord](c.tx, bucketCertificate, serial)
			if err != nil || holdingKey(r.VMID, r.ClientID) != key {
				return fmt.Errorf("holding %s names certificate %s: %w", key, serial, err)
			}
		}
		return nil
	})
}

func (c *ledgerCheck) certificates() error {
	n, thumbs := 0, 0
	err := each(c.tx, bucketCertificate, func(serial string, r certificateRecord) error {
		n++
		for _, thumb := range thumbprints(r.DER) {
			if at, err := load[string](c.tx, bucketThumbprint, thumb); err != nil || at != serial {
				return fmt.Errorf("certificate %s is not found by thumbprint: %q %w", serial, at, err)
			}
		}
		key := holdingKey(r.VMID, r.ClientID)
		if !c.held[key] && r.Revoked.IsZero() {
			return fmt.Errorf("certificate %s of the ended holding %s is not revoked", serial, key)
		}
		if m, err := load[machineRecord](c.tx, bucketMachine, r.VMID); err == nil && !m.Disconnected.IsZero() && r.Revoked.IsZero() {
			return fmt.Errorf("certificate %s of the disconnected machine %s is not revoked", serial, m.Name)
		}
		return nil
	})
	return errors.Join(err, each(c.tx, bucketThumbprint, func(string, string) error { thumbs++; return nil }), differ("thumbprints", thumbs, 2*n))
}

func (c *ledgerCheck) claims() error {
	return each(c.tx, bucketClaim, func(jti string, r claimRecord) error {
		if r.Kind != claimEnroll {
			return nil
		}
		h, err := c.holding(r.VMID, r.ClientID)
		if err != nil || h.Claim != jti {
			return fmt.Errorf("one-time token %s is out beside %q: %w", jti, h.Claim, err)
		}
		return nil
	})
}

func (c *ledgerCheck) audit() error {
	head, err := load[auditHead](c.tx, bucketAuditHead, "head")
	if errors.Is(err, errAbsent) {
		return nil
	}
	var lines []json.RawMessage
	err = errors.Join(err, each(c.tx, bucketAudit, func(_ string, line json.RawMessage) error {
		lines = append(lines, line)
		return nil
	}))
	_, broken := verifyAudit(lines, "")
	return errors.Join(err, broken, differ("audit records", len(lines), int(head.Next-head.First)))
}

func differ(what string, got, want int) error {
	if got != want {
		return fmt.Errorf("%d %s, want %d", got, what, want)
	}
	return nil
}
