package site

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/store"
)

// The buckets of authority.db.
const (
	bucketSite        = "site"
	bucketIssuer      = "issuer"
	bucketSigning     = "signing"
	bucketMachine     = "machine"
	bucketMachineName = "machine_name" // lower-case name -> vmId
	bucketIdentity    = "identity"
	bucketName        = "identity_name" // lower-case name of a user-assigned identity -> client id
	bucketHolding     = "holding"
	bucketCertificate = "certificate"
	bucketThumbprint  = "thumbprint"
	bucketEnded       = "ended" // end in unix seconds/serial -> serial, of ended assignments
	bucketClaim       = "claim"
	bucketResource    = "resource"
	bucketReplay      = "replay"
	bucketReplayUntil = "replay_until"
	bucketAudit       = "audit"
	bucketAuditHead   = "audit_head"
)

// errAbsent is what load returns for a key without a value.
var errAbsent = store.ErrNotFound

// errEnough ends a walk early.
var errEnough = errors.New("enough")

// tx is one transaction of the ledger with the instant at which it happens. It
// is used by one goroutine and not after its function has returned.
type tx struct {
	*store.Tx
	a       *Authority
	now     time.Time
	by      string   // the operator that asked for it
	entries []Entry  // audit records to be written with it
	after   []func() // what happens in memory once it is committed
}

type principalKey struct{}

// WithPrincipal says who asks, for the audit: "uid:0". Without it the audit
// says "local": this process itself.
func WithPrincipal(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, principalKey{}, cut(name, 128))
}

func principal(ctx context.Context) string {
	if name, ok := ctx.Value(principalKey{}).(string); ok {
		return name
	}
	return "local"
}

// view runs f on one consistent picture of the ledger.
func (a *Authority) view(f func(*tx) error) error {
	return a.db.View(func(s *store.Tx) error { return f(&tx{Tx: s, a: a, now: a.now()}) })
}

// update runs f and commits what it wrote, its audit records included, in one
// commit; an error from f, or from the commit, leaves everything as it was.
// Nothing may be answered before it has returned nil. One at a time.
func (a *Authority) update(ctx context.Context, f func(*tx) error) error {
	var done *tx
	err := a.db.Update(func(s *store.Tx) error {
		t := &tx{Tx: s, a: a, now: a.now(), by: principal(ctx)}
		done = t
		if err := f(t); err != nil {
			return err
		}
		return t.writeAudit()
	})
	if err != nil {
		return err
	}
	for _, f := range done.after {
		f()
	}
	for _, e := range done.entries {
		e.log(a.log)
	}
	if a.committed != nil {
		a.committed()
	}
	return nil
}

func load[T any](t *tx, bucket, key string) (T, error) {
	v, err := store.Get[T](t.Tx, bucket, key)
	return v, placed(err, bucket, key)
}

func save(t *tx, bucket, key string, v any) error {
	return placed(store.Put(t.Tx, bucket, key, v), bucket, key)
}

func drop(t *tx, bucket, key string) error {
	if err := placed(store.Delete(t.Tx, bucket, key), bucket, key); !errors.Is(err, errAbsent) {
		return err
	}
	return nil
}

// placed says where an error came up. That nothing was there needs no saying.
func placed(err error, bucket, key string) error {
	if err == nil || errors.Is(err, errAbsent) {
		return err
	}
	return fmt.Errorf("%s %s: %w", bucket, cut(key, 80), err)
}

// each calls f with every value of a bucket in the order of keys; errEnough ends it.
func each[T any](t *tx, bucket string, f func(key string, v T) error) error {
	err := store.Each(t.Tx, bucket, f)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// bump counts a change of the assignments of m and saves it.
func (t *tx) bump(m *machineRecord) error {
	s, err := load[siteRecord](t, bucketSite, "authority")
	if err != nil {
		return err
	}
	s.Generation++
	m.Generation = s.Generation
	if err := save(t, bucketSite, "authority", s); err != nil {
		return err
	}
	return save(t, bucketMachine, m.VMID, *m)
}
