package credential

import (
	"context"
	"errors"
	"fmt"
)

// Sync asks the authority now which identities belong to this device, instead
// of at the next heartbeat, and fetches the certificates of those that are
// new. It is for an operator who has just assigned one. An authority that
// keeps no assignments has nothing to say: nil. Errors are *lifecycle.Error,
// ErrNotConnected, or say which identity could not be had.
func (d *Device) Sync(ctx context.Context) error {
	d.mu.RLock()
	sys := d.system()
	enrolled := d.enrolled
	d.mu.RUnlock()
	if !enrolled || sys == nil || sys.Current() == nil {
		return fmt.Errorf("sync: %w", ErrNotConnected)
	}
	auth, err := d.authority()
	if err != nil || !canAssign(auth) {
		return err
	}
	err = d.ask(ctx, auth, sys, "")
	if errors.Is(err, ErrNoAssignments) {
		return nil
	}
	return err
}
