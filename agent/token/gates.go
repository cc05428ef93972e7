package token

import (
	"time"

	"golang.org/x/time/rate"

	"postern/platform"
)

// Rate gates (firmware-notes/limits.md).
const (
	peerRate       = rate.Limit(1) // first fetches a second, for one peer
	peerBurst      = 16
	upstreamRate   = rate.Limit(5) // token calls a second, for the whole device
	upstreamBurst  = 32
	upstreamAtOnce = 8
	// backgroundKeeps is how many of upstreamBurst background work leaves for callers.
	backgroundKeeps = 16
	// maxPeers bounds the gates that are kept. Idle ones go first; a newcomer
	// that finds none idle shares one gate with its like.
	maxPeers = 256

	minRetryAfter = time.Second
	maxRetryAfter = 10 * time.Second
)

// peerGates hold one gate for each peer. Not safe for concurrent use: guarded
// by Broker.mu.
type peerGates struct {
	gates  map[platform.Peer]*rate.Limiter
	shared *rate.Limiter
}

func newPeerGates() *peerGates {
	return &peerGates{gates: make(map[platform.Peer]*rate.Limiter), shared: newPeerGate()}
}

func newPeerGate() *rate.Limiter { return rate.NewLimiter(peerRate, peerBurst) }

// pass takes one from the peer's gate. The refusal says when to come back.
func (p *peerGates) pass(peer platform.Peer) *LimitError {
	gate, ok := p.gates[peer]
	if !ok {
		gate = p.add(peer)
	}
	if wait := take(gate); wait > 0 {
		return &LimitError{Limit: "new tokens for " + peer.String(), RetryAfter: wait}
	}
	return nil
}

func (p *peerGates) add(peer platform.Peer) *rate.Limiter {
	if len(p.gates) >= maxPeers {
		for other, gate := range p.gates {
			if gate.Tokens() >= peerBurst {
				delete(p.gates, other)
			}
		}
	}
	if len(p.gates) >= maxPeers {
		return p.shared
	}
	gate := newPeerGate()
	p.gates[peer] = gate
	return gate
}

// take takes one from the gate, or says how long until there is one, as 1 to
// 10 s: clients give up on more (firmware-notes/wire.md).
func take(gate *rate.Limiter) (wait time.Duration) {
	r := gate.Reserve()
	wait = r.Delay()
	if wait == 0 {
		return 0
	}
	r.Cancel()
	return clampRetry(wait)
}

// clampRetry rounds up to whole seconds from 1 to 10.
func clampRetry(d time.Duration) time.Duration {
	whole := (d + time.Second - 1).Truncate(time.Second)
	return min(max(whole, minRetryAfter), maxRetryAfter)
}
