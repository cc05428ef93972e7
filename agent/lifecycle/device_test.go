package lifecycle_test

import (
	"strconv"
	"time"

	"postern/agent/lifecycle"
)

// device is a board with clocks that tests can bend: truth passes, the wall
// clock is off by some error, the boot-time clock is right.
type device struct {
	truth  time.Time
	off    time.Duration // wall minus truth
	booted time.Time     // in truth
	boots  int
	synced bool
}

func newDevice(truth time.Time) *device { return &device{truth: truth, booted: truth, boots: 1} }

func (d *device) read() lifecycle.Reading {
	return lifecycle.Reading{
		Wall: d.truth.Add(d.off), Boot: d.truth.Sub(d.booted),
		BootID: "boot-" + strconv.Itoa(d.boots), Synchronised: d.synced,
	}
}

func (d *device) pass(t time.Duration)         { d.truth = d.truth.Add(t) }
func (d *device) step(by time.Duration)        { d.off, d.synced = d.off+by, false }
func (d *device) setWall(t time.Time)          { d.off, d.synced = t.Sub(d.truth), false }
func (d *device) synchronise()                 { d.off, d.synced = 0, true }
func (d *device) reboot()                      { d.boots, d.booted, d.synced = d.boots+1, d.truth, false }
func (d *device) rebootAt(t time.Time)         { d.reboot(); d.setWall(t) }
func (d *device) date() time.Time              { return d.truth.Truncate(time.Second) }
func (d *device) clock() *lifecycle.Clock      { return d.clockWith(false) }
func (d *device) vouchedFor() *lifecycle.Clock { return d.clockWith(true) }

func (d *device) clockWith(vouched bool) *lifecycle.Clock {
	return lifecycle.NewClock(lifecycle.ClockOptions{Source: d.read, Build: built, Vouched: vouched})
}

var built = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
