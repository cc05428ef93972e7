package audit

import (
	"context"
	"strings"
	"time"

	"postern/platform"
	"postern/store"
)

// readFrom reads the ring once and returns the number after the last record.
// The cache hands its entries out after it has let go of the file, so that a
// slow reader holds up nobody.
func (l *Log) readFrom(ctx context.Context, from uint64, f func(line []byte) error) (next uint64, err error) {
	if err := l.drain(); err != nil {
		return from, err
	}
	next = from
	err = l.o.Cache.Audit(from, func(e store.AuditEntry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		next = e.Seq + 1
		return f(e.JSON)
	})
	return next, err
}

// Verify walks the whole ring.
func (l *Log) Verify(ctx context.Context) (Proof, error) {
	var c Chain
	_, err := l.readFrom(ctx, 0, func(line []byte) error {
		c.Add(line)
		return nil
	})
	return c.Proof(), err
}

const (
	nameLife = time.Minute
	maxNames = 256
)

// nameCache remembers user names, so that a record does not read /etc/passwd.
type nameCache map[platform.Peer]knownName

type knownName struct {
	name  string
	until time.Time
}

func (n *nameCache) name(lookup func(platform.Peer) string, p platform.Peer) string {
	if lookup == nil || p == platform.Unknown {
		return ""
	}
	if known, ok := (*n)[p]; ok && time.Now().Before(known.until) {
		return known.name
	}
	if *n == nil || len(*n) >= maxNames {
		*n = make(nameCache)
	}
	known := knownName{name: lookup(p), until: time.Now().Add(nameLife)}
	(*n)[p] = known
	return known.name
}

// words turns "token-issued" into "token issued".
func words(n Name) string { return strings.ReplaceAll(string(n), "-", " ") }
