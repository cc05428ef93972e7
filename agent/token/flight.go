package token

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/platform"
)

// callTime is how long one call to the authority may take, and how long a
// fetch waits for its turn before it.
const callTime = 20 * time.Second

// flight is one fetch that any number of callers wait for. It belongs to
// nobody: a caller that hangs up leaves it flying (firmware-notes/faults.md, EP6).
type flight struct {
	key        key
	owner      platform.Peer
	background bool
	forced     bool
	fresh      bool // no slot yet: one is reserved for it
	dropped    bool // the identity was forgotten meanwhile; guarded by Broker.mu

	calling atomic.Bool // it has its turn
	reached atomic.Bool // the authority's end of the connection has shown life

	done chan struct{} // closed when m and err are set
	m    *minted
	err  error
}

// await waits for f, at most wait, and no longer than quickWait for an
// authority that shows no sign of life (firmware-notes/faults.md, UP2).
func (b *Broker) await(ctx context.Context, f *flight, wait time.Duration) (*minted, error) {
	select {
	case <-f.done:
		return f.m, f.err
	default:
	}
	if wait <= 0 {
		return nil, noAnswer(0)
	}
	quick, deadline := time.NewTimer(quickWait), time.NewTimer(wait)
	defer quick.Stop()
	defer deadline.Stop()
	for {
		select {
		case <-f.done:
			return f.m, f.err
		case <-ctx.Done():
			return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "token: wait", Err: context.Cause(ctx)}
		case <-quick.C:
			if !b.showsLife(f) {
				return nil, noAnswer(quickWait)
			}
		case <-deadline.C:
			return nil, noAnswer(wait)
		}
	}
}

// showsLife reports whether waiting for f is worth while: its call has reached
// the authority, or it waits for its turn behind one that has.
func (b *Broker) showsLife(f *flight) bool {
	if f.calling.Load() {
		return f.reached.Load()
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, other := range b.flights {
		if other.reached.Load() {
			return true
		}
	}
	return false
}

func noAnswer(after time.Duration) error {
	return &lifecycle.Error{
		Class: lifecycle.ClassTransient, Op: "token",
		Reason: fmt.Sprintf("the authority has not answered within %v", after),
	}
}

// fly fetches, lands and ends.
func (b *Broker) fly(f *flight) {
	m, err := b.fetch(f)
	b.land(f, m, err)
	close(f.done)
	b.poke()
}

// fetch waits for a lane and calls the issuer with the credential that the
// identity has then. It runs without any caller's context.
func (b *Broker) fetch(f *flight) (*minted, error) {
	turn := time.NewTimer(callTime)
	defer turn.Stop()
	select {
	case b.lanes <- struct{}{}:
		defer func() { <-b.lanes }()
	case <-turn.C:
		return nil, &lifecycle.Error{
			Class: lifecycle.ClassTransient, Op: "token",
			Reason: fmt.Sprintf("%d other calls to the authority have not ended within %v", upstreamAtOnce, callTime),
		}
	}
	f.calling.Store(true)
	standing, ok := b.identities.Standing(f.key.clientID)
	switch {
	case !ok:
		return nil, ErrUnknownIdentity
	case !standing.MayIssue():
		return nil, stateError(&standing, nil)
	case standing.Credential == nil:
		return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "token", Reason: "the identity has no certificate yet"}
	}
	ctx, cancel := context.WithTimeout(f.traced(), callTime)
	defer cancel()
	m, err := b.issue(ctx, standing.Credential, f.key)
	// A key that was just renewed may not have spread at the authority; the
	// previous one, kept until the new one has earned a token, still works.
	if errors.Is(err, ErrNotReplicated) && standing.Previous != nil {
		if werr := b.upstream.Wait(ctx); werr == nil {
			m, err = b.issue(ctx, standing.Previous, f.key)
		}
	}
	return m, err
}

// traced is the context of a call. A finished handshake, or a first byte on a
// connection that was kept, proves that the authority is there; a connection
// that was kept does not by itself.
func (f *flight) traced() context.Context {
	return httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				f.reached.Store(true)
			}
		},
		GotFirstResponseByte: func() { f.reached.Store(true) },
	})
}

// issue makes one call and tells the identity how it went.
func (b *Broker) issue(ctx context.Context, with *credential.Credential, k key) (*minted, error) {
	b.count.upstream.Add(1)
	at := b.now()
	issued, err := b.issuer.Issue(ctx, with, k.resource)
	if err == nil {
		err = checkIssued(issued)
	}
	b.identities.Observe(k.clientID, with, err)
	if err != nil {
		b.count.failed.Add(1)
		return nil, err
	}
	return mint(issued, at), nil
}

// probeResource is asked for when nothing else is known: an authority that
// calls it unknown knows the identity.
const probeResource = "urn:postern:probe"

// Probe asks the issuer with one credential whether it still knows the
// identity, by a token for the resource that was used last. Nothing is kept and
// nobody is told but the caller, to whom ClassBadResource and ClassDenied are
// answers too. credential.Device asks it for a Rejected identity, once an hour.
func (b *Broker) Probe(ctx context.Context, with *credential.Credential) error {
	resource, last := probeResource, int64(math.MinInt64)
	b.mu.RLock()
	for k, s := range b.slots {
		if used := s.lastUsed.Load(); k.clientID == with.Identity.ClientID && used > last {
			resource, last = k.resource, used
		}
	}
	b.mu.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := b.upstream.Wait(ctx); err != nil {
		return &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "token: probe", Err: err}
	}
	b.count.upstream.Add(1)
	_, err := b.issuer.Issue(ctx, with, resource)
	if err != nil {
		b.count.failed.Add(1)
	}
	return err
}
