package token

import (
	"fmt"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

// A board without a real-time clock does not know at its start how long ago a
// resource was asked for; it does when the time comes.
func TestLastUseIsRecalledWhenTheTimeIsKnown(t *testing.T) {
	for name, asked := range map[string]bool{"unused": false, "asked for before the time came": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := quickDir(t)
				w := newWorld(t, func(o *Options) { o.Cache = openCache(t, dir) })
				stop := w.run()
				w.mustAsk(vault)
				for boot := range 10 { // a day each
					after(24 * time.Hour)
					stop()
					w.device.reboot(fmt.Sprintf("boot-%d", boot+2), 0)
					w.device.set(func(c *clocks) { c.synced = false })
					w.clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: w.device.read})
					w.reopened(dir)
					stop = w.run()
					after(10 * time.Minute)
					if boot == 0 && asked {
						_, _ = w.ask(vault)
					}
					w.device.set(func(c *clocks) { c.synced = true })
				}
				after(time.Hour)
				before := w.issuer.count()
				after(24 * time.Hour)
				if n := w.issuer.count() - before; n != 0 || len(w.List()) != 0 {
					t.Errorf("%d calls on the eleventh day for a resource that nobody asks for; the cache has %+v", n, w.List())
				}
				stop()
			})
		})
	}
}
