package site

import (
	"context"
	"net"
	"sync"
	"time"
)

// denials keeps whoever is refused from wearing out the disk. Of equal ones
// (same address, action, answer and, where it is proven, identity) the first is
// written at once and those within the next minute are counted into the next
// record; and all together get a record every ten seconds, after a burst of
// sixty. Safe for concurrent use.
type denials struct {
	mu     sync.Mutex
	seen   map[string]fold
	gate   *gate
	missed int // not written and not in any fold
}

type fold struct {
	written time.Time
	more    int
}

const (
	foldFor      = time.Minute
	foldKeys     = 1024
	denialRate   = 0.1 // a second
	denialsBurst = 60
)

func newDenials() *denials {
	return &denials{seen: map[string]fold{}, gate: newGate(denialRate, denialsBurst)}
}

// count returns how many equal denials a record stands for that is to be
// written now, 0 if none is, and how many others were passed over before it.
func (d *denials) count(key string, now time.Time) (equal, missed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, there := d.seen[key]
	if since := now.Sub(f.written); there && since >= 0 && since < foldFor {
		f.more++
		d.seen[key] = f
		return 0, 0
	}
	if _, ok := d.gate.pass("", now); !ok {
		d.missed++
		return 0, 0
	}
	if len(d.seen) >= foldKeys {
		d.sweep(now)
	}
	d.seen[key] = fold{written: now}
	missed, d.missed = d.missed, 0
	return f.more + 1, missed
}

// sweep forgets the folds that are over; the gate bounds how many are not.
func (d *denials) sweep(now time.Time) {
	for key, f := range d.seen {
		if since := now.Sub(f.written); since < 0 || since >= foldFor {
			d.missed += f.more
			delete(d.seen, key)
		}
	}
}

// deny writes a refusal into the audit. kind tells refusals of one action
// apart and holds nothing that a stranger chose. The refusal stands whether
// writing works or not.
func (a *Authority) deny(ctx context.Context, e Entry, kind string) {
	host, _, err := net.SplitHostPort(e.Source)
	if err != nil {
		host = e.Source
	}
	equal, missed := a.denials.count(host+"\x00"+e.Action+"\x00"+kind, a.now())
	if equal == 0 {
		return
	}
	e.Outcome, e.Missed = denied, missed
	if equal > 1 {
		e.Count = equal
	}
	err = a.update(context.WithoutCancel(ctx), func(t *tx) error {
		t.note(e)
		return nil
	})
	if err != nil {
		a.log.Error("a refusal could not be written into the audit", "event", "site-audit", "action", e.Action, "reason", err)
	}
}
