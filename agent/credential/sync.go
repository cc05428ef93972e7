package credential

import (
	"context"

	"postern/agent/lifecycle"
)

// Sync asks the authority now which identities belong to this device, instead
// of at the next heartbeat, and fetches the certificates of those that are
// new. It is for an operator who has just assigned one. An authority that
// keeps no assignments has nothing to say: nil. Errors are *Problem where a
// state or another operation stands in the way, *lifecycle.Error, or say which
// identities could not be had.
func (d *Device) Sync(ctx context.Context) error {
	end, err := d.begin("sync")
	if err != nil {
		return err
	}
	defer end()
	d.mu.RLock()
	may, sys := d.voice(d.clock.Now())
	d.mu.RUnlock()
	if may != full {
		st, _ := d.System()
		return stateProblem("sync", st)
	}
	auth, err := d.authority()
	if err != nil || !canAssign(auth) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = d.ask(ctx, auth, sys, "")
	if lifecycle.ClassOf(err) != 0 {
		d.planBeat(err)
	}
	return err
}
