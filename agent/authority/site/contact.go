package site

import (
	"context"
	"maps"
	"time"
)

// contactEvery is how exact a stored last contact is: a heartbeat every five
// minutes must not be a write.
const contactEvery = time.Hour

// touch remembers that a machine was heard of now.
func (a *Authority) touch(ctx context.Context, vmID string) {
	now := a.now().UTC()
	a.mu.Lock()
	a.contacts[vmID] = now
	since := now.Sub(a.flushed)
	due := since < 0 || since >= contactEvery
	if due {
		a.flushed = now
	}
	a.mu.Unlock()
	if !due {
		return
	}
	if err := a.flushContacts(context.WithoutCancel(ctx)); err != nil {
		a.log.Warn("last contacts could not be written", "event", "site-contact", "reason", err)
	}
}

// contact returns the last contact of a machine.
func (a *Authority) contact(m machineRecord) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return later(m.LastContact, a.contacts[m.VMID])
}

func (a *Authority) forget(vmID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.contacts, vmID)
}

// flushContacts writes the last contacts that are newer than the stored ones,
// all in one commit.
func (a *Authority) flushContacts(ctx context.Context) error {
	a.mu.Lock()
	contacts := maps.Clone(a.contacts)
	a.mu.Unlock()
	if len(contacts) == 0 {
		return nil
	}
	return a.update(ctx, func(t *tx) error {
		for vmID, at := range contacts {
			m, err := load[machineRecord](t, bucketMachine, vmID)
			if err != nil || !at.After(m.LastContact) {
				continue // deleted since, or nothing new
			}
			m.LastContact = at
			if err := save(t, bucketMachine, vmID, m); err != nil {
				return err
			}
		}
		return nil
	})
}
