package site

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Identity is an identity as the administration sees it.
type Identity struct {
	Kind       string    `json:"kind"` // "SystemAssigned", "UserAssigned"
	Name       string    `json:"name"`
	Group      string    `json:"group"`
	ClientID   string    `json:"client_id"`
	ObjectID   string    `json:"object_id"`
	TenantID   string    `json:"tenant_id"`
	ResourceID string    `json:"resource_id"`
	CreatedBy  string    `json:"created_by"`
	Created    time.Time `json:"created"`
	Disabled   bool      `json:"disabled,omitempty"`
	Machines   []string  `json:"machines"` // names
}

func (t *tx) identityView(r identityRecord) Identity {
	return Identity{
		Kind: r.Kind, Name: r.Name, Group: r.Group, ClientID: r.ClientID, ObjectID: r.ObjectID, TenantID: t.a.tenant,
		ResourceID: r.ResourceID, CreatedBy: r.CreatedBy, Created: r.Created, Disabled: r.Disabled, Machines: []string{},
	}
}

// Identities lists the identities of both kinds that are not deleted, by name.
func (a *Authority) Identities(context.Context) ([]Identity, error) {
	out := []Identity{}
	err := a.view(func(t *tx) error {
		on := map[string][]string{}
		err := each(t, bucketMachine, func(_ string, m machineRecord) error {
			for _, clientID := range append([]string{m.System}, m.Holds...) {
				on[clientID] = append(on[clientID], m.Name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return each(t, bucketIdentity, func(_ string, r identityRecord) error {
			if !r.Deleted.IsZero() {
				return nil
			}
			i := t.identityView(r)
			i.Machines = append(i.Machines, on[r.ClientID]...)
			slices.Sort(i.Machines)
			out = append(out, i)
			return nil
		})
	})
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, err
}

// CreateIdentity makes a user-assigned identity. Names are compared without
// case. Errors: ErrInvalid, ErrExists.
func (a *Authority) CreateIdentity(ctx context.Context, name, group string) (Identity, error) {
	if err := checkName("identity", name); err != nil {
		return Identity{}, err
	}
	group, err := groupOr(group)
	if err != nil {
		return Identity{}, err
	}
	r := identityRecord{
		Kind: userAssigned, Name: name, Group: group, ClientID: newGUID(), ObjectID: newGUID(), Application: newGUID(),
		ResourceID: identityResource(a.tenant, group, name), CreatedBy: principal(ctx),
	}
	var i Identity
	err = a.update(ctx, func(t *tx) error {
		r.Created = t.now.UTC()
		if _, err := t.identityByName(name); err == nil {
			return fmt.Errorf("identity %q: %w", name, ErrExists)
		} else if !isNotFound(err) {
			return err
		}
		i = t.identityView(r)
		t.note(Entry{Action: "identity-created", Principal: r.CreatedBy, Scope: r.ResourceID, Name: name, ClientID: r.ClientID})
		if err := save(t, bucketName, strings.ToLower(name), r.ClientID); err != nil {
			return err
		}
		return save(t, bucketIdentity, r.ClientID, r)
	})
	return i, err
}

// identityByName finds a user-assigned identity that is not deleted, by name
// without case, or one of either kind by client id.
func (t *tx) identityByName(name string) (identityRecord, error) {
	clientID := strings.ToLower(name)
	if !validGUID(clientID) {
		var err error
		if clientID, err = load[string](t, bucketName, clientID); err != nil {
			return identityRecord{}, notFound("identity", name, err)
		}
	}
	i, err := load[identityRecord](t, bucketIdentity, clientID)
	if err == nil && !i.Deleted.IsZero() {
		err = errAbsent
	}
	return i, notFound("identity", name, err)
}

// userIdentity is identityByName without the system-assigned ones, whose life
// is their machine's.
func (t *tx) userIdentity(name string) (identityRecord, error) {
	i, err := t.identityByName(name)
	if err == nil && i.Kind != userAssigned {
		err = fmt.Errorf("identity %q: %w: it is system-assigned and lives with its machine", i.Name, ErrInvalid)
	}
	return i, err
}

// DeleteIdentity deletes a user-assigned identity. It is refused with
// ErrAssigned while a machine has it, unless force is set. ErrNotFound.
func (a *Authority) DeleteIdentity(ctx context.Context, name string, force bool) error {
	return a.update(ctx, func(t *tx) error {
		i, err := t.userIdentity(name)
		if err != nil {
			return err
		}
		var on []machineRecord
		err = each(t, bucketMachine, func(_ string, m machineRecord) error {
			if slices.Contains(m.Holds, i.ClientID) {
				on = append(on, m)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(on) > 0 && !force {
			return fmt.Errorf("identity %q: %w to %s", i.Name, ErrAssigned, andMore(on))
		}
		for _, m := range on {
			if err := t.unassign(m, i, "identity deleted"); err != nil {
				return err
			}
		}
		i.Deleted = t.now.UTC()
		t.note(Entry{Action: "identity-deleted", Principal: t.by, Scope: i.ResourceID, Name: i.Name, ClientID: i.ClientID})
		if err := drop(t, bucketName, strings.ToLower(i.Name)); err != nil {
			return err
		}
		return save(t, bucketIdentity, i.ClientID, i)
	})
}

// andMore names one machine, and how many others there are.
func andMore(on []machineRecord) string {
	if len(on) == 1 {
		return on[0].Name
	}
	return fmt.Sprintf("%s and %d more", on[0].Name, len(on)-1)
}

// DisableIdentity stops an identity of either kind from getting tokens and
// certificates, or lets it have them again. Nothing else of it changes.
func (a *Authority) DisableIdentity(ctx context.Context, name string, disabled bool) error {
	return a.update(ctx, func(t *tx) error {
		i, err := t.identityByName(name)
		if err != nil {
			return err
		}
		i.Disabled = disabled
		action := "identity-enabled"
		if disabled {
			action = "identity-disabled"
		}
		t.note(Entry{Action: action, Principal: t.by, Scope: i.ResourceID, Name: i.Name, ClientID: i.ClientID})
		return save(t, bucketIdentity, i.ClientID, i)
	})
}

// Assign gives a user-assigned identity to a machine; the machine fetches a
// certificate of its own for it. Assigning twice changes nothing. Errors:
// ErrNotFound, ErrInvalid, ErrTooMany (64 identities on a machine).
func (a *Authority) Assign(ctx context.Context, identity, machine string) error {
	return a.assignment(ctx, identity, machine, func(t *tx, m machineRecord, i identityRecord) error {
		if slices.Contains(m.Holds, i.ClientID) {
			return nil
		}
		if len(m.Holds) >= maxIdentities {
			return fmt.Errorf("machine %q: %w: %d identities", m.Name, ErrTooMany, len(m.Holds))
		}
		m.Holds = append(m.Holds, i.ClientID)
		if err := t.bump(&m); err != nil {
			return err
		}
		t.note(Entry{Action: "identity-assigned", Principal: t.by, Scope: i.ResourceID, Name: i.Name, Machine: m.Name, ClientID: i.ClientID})
		return t.saveHolding(holdingRecord{
			VMID: m.VMID, ClientID: i.ClientID, Assigned: t.now.UTC(), By: t.by, Enroll: true, Generation: m.Generation,
		})
	})
}

// RenewAssignment lets a machine fetch a new certificate for an identity that
// it has: after its certificate lapsed or was revoked. The old ones are
// revoked when the new one is fetched. ErrNotFound if it is not assigned.
func (a *Authority) RenewAssignment(ctx context.Context, identity, machine string) error {
	return a.assignment(ctx, identity, machine, func(t *tx, m machineRecord, i identityRecord) error {
		if !slices.Contains(m.Holds, i.ClientID) {
			return fmt.Errorf("identity %q on machine %q: %w", i.Name, m.Name, ErrNotFound)
		}
		if err := t.bump(&m); err != nil {
			return err
		}
		t.note(Entry{Action: "identity-renewal-allowed", Principal: t.by, Scope: i.ResourceID, Name: i.Name, Machine: m.Name, ClientID: i.ClientID})
		return t.allowEnroll(m, i.ClientID, true)
	})
}

// Unassign takes a user-assigned identity from a machine. Its certificates
// there are revoked at once. ErrNotFound if it is not assigned.
func (a *Authority) Unassign(ctx context.Context, identity, machine string) error {
	return a.assignment(ctx, identity, machine, func(t *tx, m machineRecord, i identityRecord) error {
		if !slices.Contains(m.Holds, i.ClientID) {
			return fmt.Errorf("identity %q on machine %q: %w", i.Name, m.Name, ErrNotFound)
		}
		return t.unassign(m, i, "unassigned")
	})
}

func (a *Authority) assignment(ctx context.Context, identity, machine string, f func(*tx, machineRecord, identityRecord) error) error {
	return a.update(ctx, func(t *tx) error {
		i, err := t.userIdentity(identity)
		if err != nil {
			return err
		}
		m, err := t.machineByName(machine)
		if err != nil {
			return err
		}
		return f(t, m, i)
	})
}

func (t *tx) unassign(m machineRecord, i identityRecord, why string) error {
	if err := t.removeHolding(m, i.ClientID, t.by, why); err != nil {
		return err
	}
	m.Holds = slices.DeleteFunc(m.Holds, func(c string) bool { return c == i.ClientID })
	t.note(Entry{Action: "identity-unassigned", Principal: t.by, Scope: i.ResourceID, Name: i.Name, Machine: m.Name, ClientID: i.ClientID, Reason: why})
	return t.bump(&m)
}
