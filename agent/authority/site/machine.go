package site

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"
)

// Machine is a device as the administration sees it.
type Machine struct {
	Name         string            `json:"name"`
	Group        string            `json:"group"`
	VMID         string            `json:"vm_id"`
	ResourceID   string            `json:"resource_id"`
	Location     string            `json:"location,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	ClientID     string            `json:"client_id"` // of the system-assigned identity
	ObjectID     string            `json:"object_id"`
	CreatedBy    string            `json:"created_by"`
	Created      time.Time         `json:"created"`
	Disconnected time.Time         `json:"disconnected,omitzero"` // when it withdrew its own certificates
	LastContact  time.Time         `json:"last_contact,omitzero"`
	Generation   uint64            `json:"generation"`
	Identities   []string          `json:"identities"`   // names of the assigned identities
	Certificates []Certificate     `json:"certificates"` // of all its identities, oldest first for each
}

// Certificate is an issued certificate as the administration sees it.
type Certificate struct {
	Serial    string    `json:"serial"` // decimal
	ClientID  string    `json:"client_id"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Seen      time.Time `json:"seen,omitzero"` // first use
	Revoked   time.Time `json:"revoked,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// Machines lists all machines by name.
func (a *Authority) Machines(context.Context) ([]Machine, error) {
	out := []Machine{}
	err := a.view(func(t *tx) error {
		return each(t, bucketMachine, func(_ string, r machineRecord) error {
			m, err := t.machineView(r)
			out = append(out, m)
			return err
		})
	})
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, err
}

// MachineByName returns one machine. The name is compared without case.
// ErrNotFound if there is none.
func (a *Authority) MachineByName(_ context.Context, name string) (m Machine, err error) {
	err = a.view(func(t *tx) error {
		r, err := t.machineByName(name)
		if err != nil {
			return err
		}
		m, err = t.machineView(r)
		return err
	})
	return m, err
}

func (t *tx) machineView(r machineRecord) (Machine, error) {
	system, err := load[identityRecord](t, bucketIdentity, r.System)
	if err != nil {
		return Machine{}, err
	}
	m := Machine{
		Name: r.Name, Group: r.Group, VMID: r.VMID, ResourceID: r.ResourceID, Location: r.Location, Tags: r.Tags,
		ClientID: system.ClientID, ObjectID: system.ObjectID, CreatedBy: r.CreatedBy, Created: r.Created,
		Disconnected: r.Disconnected, LastContact: t.a.contact(r), Generation: r.Generation,
		Identities: []string{}, Certificates: []Certificate{},
	}
	for _, clientID := range append([]string{r.System}, r.Holds...) {
		if clientID != r.System {
			i, err := load[identityRecord](t, bucketIdentity, clientID)
			if err != nil {
				return m, err
			}
			m.Identities = append(m.Identities, i.Name)
		}
		h, err := t.holding(r.VMID, clientID)
		if err != nil {
			return m, err
		}
		for _, serial := range h.Serials {
			c, err := load[certificateRecord](t, bucketCertificate, serial)
			if err != nil {
				return m, err
			}
			m.Certificates = append(m.Certificates, Certificate{
				Serial: c.Serial, ClientID: c.ClientID, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
				Seen: c.Seen, Revoked: c.Revoked, Reason: c.Reason,
			})
		}
	}
	return m, nil
}

// machineByName finds a machine by name without case, or by vmId.
func (t *tx) machineByName(name string) (machineRecord, error) {
	key := strings.ToLower(name)
	vmID := key
	if !validGUID(key) {
		var err error
		if vmID, err = load[string](t, bucketMachineName, key); err != nil {
			return machineRecord{}, notFound("machine", name, err)
		}
	}
	m, err := load[machineRecord](t, bucketMachine, vmID)
	return m, notFound("machine", name, err)
}

// notFound gives the absence of a record its name.
func notFound(kind, name string, err error) error {
	if errors.Is(err, errAbsent) {
		return fmt.Errorf("%s %q: %w", kind, cut(name, 80), ErrNotFound)
	}
	return err
}

// register makes the machine of a claim with its system-assigned identity:
// both, or, with the transaction, neither.
func (t *tx) register(c claimRecord) (machineRecord, error) {
	old, err := t.machineByName(c.Machine)
	switch {
	case err == nil && old.Disconnected.IsZero():
		return old, forbidden("machine %q exists; needs a re-onboard token", c.Machine)
	case err == nil:
		// It withdrew its own certificates: the name is free, the old identity is gone for good.
		if err := t.removeMachine(old, c.By, "connected again"); err != nil {
			return old, err
		}
	case !errors.Is(err, ErrNotFound):
		return old, err
	}
	now := t.now.UTC()
	m := machineRecord{
		VMID: c.VMID, Name: c.Machine, Group: c.Group, ResourceID: machineResource(t.a.tenant, c.Group, c.Machine),
		Location: c.Location, Tags: c.Tags, System: c.ClientID, CreatedBy: c.By, Created: now,
	}
	i := identityRecord{
		Kind: systemAssigned, Name: m.Name, Group: m.Group, ClientID: c.ClientID, ObjectID: c.ObjectID, Application: newGUID(),
		ResourceID: m.ResourceID, VMID: m.VMID, CreatedBy: c.By, Created: now,
	}
	if err := save(t, bucketIdentity, i.ClientID, i); err != nil {
		return m, err
	}
	if err := t.saveHolding(holdingRecord{VMID: m.VMID, ClientID: i.ClientID, Assigned: now, By: c.By}); err != nil {
		return m, err
	}
	if err := save(t, bucketMachineName, strings.ToLower(m.Name), m.VMID); err != nil {
		return m, err
	}
	t.note(Entry{Action: "machine-created", Principal: c.By, Scope: m.ResourceID, Machine: m.Name, ClientID: i.ClientID, JTI: c.JTI})
	return m, t.bump(&m)
}

// reconnect prepares an existing machine for the new key of a re-onboard
// claim: same identity, all its old certificates revoked. Assigned identities
// whose certificates are all over may be fetched again; an operator wants the
// machine back.
func (t *tx) reconnect(c claimRecord) (machineRecord, error) {
	m, err := load[machineRecord](t, bucketMachine, c.VMID)
	if errors.Is(err, errAbsent) {
		return m, unauthorized(errDeleted)
	}
	if err != nil {
		return m, err
	}
	h, err := t.holding(m.VMID, m.System)
	if err != nil {
		return m, err
	}
	if err := t.revokeAll(&h, c.By, m.Name, "reconnected"); err != nil {
		return m, err
	}
	m.Disconnected = time.Time{}
	t.note(Entry{Action: "machine-reconnected", Principal: c.By, Scope: m.ResourceID, Machine: m.Name, ClientID: m.System, JTI: c.JTI})
	if err := t.bump(&m); err != nil {
		return m, err
	}
	for _, clientID := range m.Holds {
		if err := t.allowEnroll(m, clientID, false); err != nil {
			return m, err
		}
	}
	return m, nil
}

// DeleteMachine removes a machine, and with it its system-assigned identity
// and all its certificates. User-assigned identities lose the machine and live
// on. ErrNotFound if there is none.
func (a *Authority) DeleteMachine(ctx context.Context, name string) error {
	return a.update(ctx, func(t *tx) error {
		m, err := t.machineByName(name)
		if err != nil {
			return err
		}
		return t.removeMachine(m, t.by, "")
	})
}

func (t *tx) removeMachine(m machineRecord, by, why string) error {
	for _, clientID := range append([]string{m.System}, m.Holds...) {
		if err := t.removeHolding(m, clientID, by, "machine deleted"); err != nil {
			return err
		}
	}
	i, err := load[identityRecord](t, bucketIdentity, m.System)
	if err != nil {
		return err
	}
	i.Deleted = t.now.UTC()
	if err := save(t, bucketIdentity, i.ClientID, i); err != nil {
		return err
	}
	t.note(Entry{Action: "machine-deleted", Principal: by, Scope: m.ResourceID, Machine: m.Name, ClientID: m.System, Reason: why})
	t.after = append(t.after, func() { t.a.forget(m.VMID) })
	return errors.Join(drop(t, bucketMachineName, strings.ToLower(m.Name)), drop(t, bucketMachine, m.VMID))
}
