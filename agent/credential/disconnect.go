package credential

import (
	"context"
	"fmt"
	"strings"

	"postern/agent/lifecycle"
	"postern/store"
)

// Disconnect takes the device's identity away: every certificate is withdrawn
// at the authority, which ends the record there, then the keys are destroyed.
// If the authority cannot be told, nothing is destroyed and the *Problem names
// --local-only; with localOnly nobody is told and the record that stays is
// named. It can be repeated after a cut. step is told about each stage; nil: nobody.
func (d *Device) Disconnect(ctx context.Context, localOnly bool, step func(string)) error {
	if step == nil {
		step = mute
	}
	end, err := d.begin("disconnect")
	if err != nil {
		return err
	}
	defer end()
	d.mu.RLock()
	dev, damaged, enrolled := d.dev, d.damaged, d.enrolled
	d.mu.RUnlock()
	if !enrolled && damaged == nil && !d.file.Exists() {
		return stateProblem("disconnect", Standing{State: lifecycle.Unenrolled, Fix: fixConnect})
	}
	left := d.leftUpstream(dev)
	if !localOnly {
		if err := d.withdrawAll(ctx, step); err != nil {
			return d.problem("disconnect", err)
		}
		left = ""
	}
	all := d.List()
	if err := d.destroy(); err != nil {
		return &Problem{ID: "store", Op: "disconnect", Fix: fixLocalOnly, Err: err}
	}
	step("destroyed: the keys of this device's identities")
	if left != "" {
		step(left)
	}
	d.disconnected(all, left)
	return nil
}

func (d *Device) destroy() error {
	d.write.Lock()
	defer d.write.Unlock()
	err := d.file.Destroy()
	if err == nil || !d.file.Exists() {
		d.forget() // given up, even if the files cannot be removed yet
		return err
	}
	d.reload()
	return err
}

func (d *Device) disconnected(all []Standing, left string) {
	if len(all) == 0 {
		d.emit(Event{Kind: EventDisconnected, Reason: left})
	}
	for _, st := range all {
		d.emit(Event{Kind: EventDisconnected, Identity: st.Identity, State: lifecycle.Unenrolled, Previous: st.State, Reason: left})
	}
}

// leftUpstream names the record that stays when the authority is not told.
func (d *Device) leftUpstream(dev store.DeviceRecord) string {
	var named []string
	for _, st := range d.List() {
		if st.Credential != nil || st.Exposed != "" {
			named = append(named, label(st.Identity))
		}
	}
	switch {
	case len(named) > 0:
		return "left at " + dev.AuthorityURL + ", delete it there: " + strings.Join(named, ", ")
	case dev.AuthorityURL != "":
		return "left at " + dev.AuthorityURL + ": this device's record, delete it there"
	}
	return "a record of this device may be left at its authority"
}

// withdrawAll withdraws every certificate, the system identity's last, since
// it is the one that the others hang on. An authority that no longer knows one
// is what was wanted.
func (d *Device) withdrawAll(ctx context.Context, step func(string)) error {
	if st, _ := d.System(); st.State == lifecycle.Damaged || st.State == lifecycle.Moved {
		// Damaged cannot; a copied card must not: it would end the identity of
		// the device that it was copied from.
		p := stateProblem("disconnect", st)
		p.Fix = fixLocalOnly
		return p
	}
	auth, err := d.authority()
	if err != nil {
		return upstream(err)
	}
	order := d.List() // the system identity comes first
	for i := len(order) - 1; i >= 0; i-- {
		if err := d.withdrawOne(ctx, auth, order[i], step); err != nil {
			return err
		}
	}
	return nil
}

func (d *Device) withdrawOne(ctx context.Context, auth Authority, st Standing, step func(string)) error {
	h, ok := d.Holder(st.Identity.ClientID)
	if !ok || h.Current() == nil || st.State == lifecycle.Rejected {
		return nil
	}
	if st.State == lifecycle.Expired {
		return &Problem{
			ID: "record-left", Op: "disconnect", State: st.State, Fix: fixLocalOnly,
			Err: fmt.Errorf("%w: the certificate of %s ended %s, so the authority does not listen to it", ErrUpstreamRecord, label(st.Identity), stamp(st.NotAfter)),
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d.mu.RLock()
	old, retired := h.previous, h.retired
	d.mu.RUnlock()
	if old != nil && !retired && d.clock.VerifyTime().Before(old.Leaf().NotAfter) {
		d.heard(gone(auth.Retire(ctx, old))) // it ends by itself: a failure does not stop us
	}
	err := gone(auth.Retire(ctx, h.Current()))
	d.heard(err)
	if err != nil {
		return upstream(fmt.Errorf("withdraw the certificate of %s: %w", label(st.Identity), err))
	}
	step("withdrawn: the certificate of " + label(st.Identity))
	return nil
}

// upstream says that nothing was destroyed because the authority was not told.
func upstream(err error) error {
	p := &Problem{ID: "record-left", Op: "disconnect", Fix: fixLocalOnly, Err: fmt.Errorf("%w: %w", ErrUpstreamRecord, err)}
	if lifecycle.ClassOf(err) == lifecycle.ClassTransient {
		p.State = lifecycle.Offline
	}
	return p
}

// Adopt says that this is the device that was connected, with replaced parts:
// the hardware found now becomes the enrolled one. Errors are *Problem.
func (d *Device) Adopt(_ context.Context) error {
	end, err := d.begin("adopt")
	if err != nil {
		return err
	}
	defer end()
	st, _ := d.System()
	d.mu.RLock()
	damaged, enrolled := d.damaged, d.enrolled
	d.mu.RUnlock()
	switch {
	case damaged != nil:
		return stateProblem("adopt", st)
	case !enrolled:
		return stateProblem("adopt", Standing{State: lifecycle.Unenrolled, Fix: fixConnect})
	}
	found := d.findParts()
	err = d.changeDevice("store hardware", func(dev *store.DeviceRecord) { dev.Fingerprint = found })
	if err != nil {
		return &Problem{ID: "store", Op: "adopt", Fix: fixStore, Err: err}
	}
	d.emit(Event{Kind: EventAdopted, Identity: st.Identity, Previous: st.State, Reason: "the hardware found now is the enrolled one"})
	return nil
}
