package site

import (
	"context"
	"net"
	"sync"
	"time"
)

// denials folds equal refusals, so that whoever is refused cannot wear out the
// disk: the first is written at once, those within the next minute are counted
// and stand in the next record. Safe for concurrent use.
type denials struct {
	mu   sync.Mutex
	seen map[string]fold
}

type fold struct {
	written time.Time
	more    int
}

const (
	foldFor  = time.Minute
	foldKeys = 1024 // beyond it everybody shares one
)

func newDenials() *denials { return &denials{seen: map[string]fold{}} }

// count returns how many equal denials a record stands for that is to be
// written now, or 0 if none is.
func (d *denials) count(key string, now time.Time) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, there := d.seen[key]
	if !there && len(d.seen) >= foldKeys {
		d.sweep(now)
		if len(d.seen) >= foldKeys {
			key = ""
			f, there = d.seen[key]
		}
	}
	if since := now.Sub(f.written); there && since >= 0 && since < foldFor {
		f.more++
		d.seen[key] = f
		return 0
	}
	d.seen[key] = fold{written: now}
	return f.more + 1
}

func (d *denials) sweep(now time.Time) {
	for key, f := range d.seen {
		if since := now.Sub(f.written); since < 0 || since >= foldFor {
			delete(d.seen, key)
		}
	}
}

// deny writes a refusal into the audit. The refusal stands whether that works
// or not.
func (a *Authority) deny(ctx context.Context, e Entry) {
	host, _, err := net.SplitHostPort(e.Source)
	if err != nil {
		host = e.Source
	}
	n := a.denials.count(host+"\x00"+e.Action+"\x00"+e.ClientID+"\x00"+e.Reason, a.now())
	if n == 0 {
		return
	}
	e.Outcome = denied
	if n > 1 {
		e.Count = n
	}
	err = a.update(context.WithoutCancel(ctx), func(t *tx) error {
		t.note(e)
		return nil
	})
	if err != nil {
		a.log.Error("a refusal could not be written into the audit", "event", "site-audit", "action", e.Action, "reason", err)
	}
}
