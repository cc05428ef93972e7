package endpoint

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"sync"
	"time"

	"postern/store"
)

const (
	// oldSecretLife is how long the secret before a rotation still works.
	oldSecretLife = 10 * time.Minute
	// maxFailures is how many wrong secrets one address may present in failureTime.
	maxFailures  = 10
	failureTime  = time.Minute
	maxAddresses = 256 // whose failures are remembered
)

// Workload is the holder of a secret: the secret is the principal, whatever
// account or address it comes from. Only digests are kept. Its methods are safe
// for concurrent use.
type Workload struct {
	name string

	mu       sync.Mutex
	current  [sha256.Size]byte
	former   [sha256.Size]byte
	until    time.Time // former works until then; monotonic
	failures map[netip.Addr]*failures
}

// failures counts the wrong secrets of one address since start.
type failures struct {
	start time.Time
	count int
}

// NewWorkload returns the holder of a secret of which only the SHA-256 is known
// here. The secret should have 256 bits.
func NewWorkload(name string, digest [sha256.Size]byte) *Workload {
	return &Workload{name: name, current: digest, failures: make(map[netip.Addr]*failures)}
}

// Digest returns what is kept of a secret.
func Digest(secret store.Secret) [sha256.Size]byte {
	return sha256.Sum256([]byte(secret.Reveal()))
}

// Name is the workload's name.
func (w *Workload) Name() string { return w.name }

// Rotate replaces the secret. The one before works for another 10 minutes, the
// one before that no longer.
func (w *Workload) Rotate(digest [sha256.Size]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if digest == w.current {
		return
	}
	w.former, w.current, w.until = w.current, digest, time.Now().Add(oldSecretLife)
}

// Revoke lets nobody in until the next Rotate: neither by the secret nor by the
// one before. digest is one that no secret has.
func (w *Workload) Revoke(digest [sha256.Size]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current, w.until = digest, time.Time{}
}

// holds reports whether secret is the workload's, in constant time.
func (w *Workload) holds(secret string) bool {
	digest := sha256.Sum256([]byte(secret))
	w.mu.Lock()
	defer w.mu.Unlock()
	current := subtle.ConstantTimeCompare(digest[:], w.current[:])
	former := subtle.ConstantTimeCompare(digest[:], w.former[:])
	if !time.Now().Before(w.until) {
		former = 0
	}
	return current|former == 1
}

// failed counts a wrong secret from addr; true if it was one too many. A right
// secret is never refused for what its address did before: neighbours behind
// one address could otherwise shut each other out.
func (w *Workload) failed(addr netip.Addr) (tooMany bool) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.failures[addr]
	if f == nil || now.Sub(f.start) >= failureTime {
		if f == nil && len(w.failures) >= maxAddresses {
			w.dropOldest()
		}
		f = &failures{start: now}
		w.failures[addr] = f
	}
	f.count++
	return f.count > maxFailures
}

// dropOldest forgets the address whose minute began first; mu is held.
func (w *Workload) dropOldest() {
	var oldest netip.Addr
	var start time.Time
	for addr, f := range w.failures {
		if start.IsZero() || f.start.Before(start) {
			oldest, start = addr, f.start
		}
	}
	delete(w.failures, oldest)
}
