package challenge

import (
	"crypto/sha256"
	"crypto/subtle"
	"time"

	"postern/platform"
)

// entry is one outstanding challenge. Everything but name, peer, dir and minted
// is guarded by Keeper.mu.
type entry struct {
	name   string
	peer   platform.Peer
	dir    *held         // where its file is
	minted time.Duration // age of the keeper

	digest    [sha256.Size]byte
	live      bool // the file is complete: the key can be presented
	presented bool
	used      bool // a 200 was answered
}

func (k *entry) expired(now time.Duration) bool { return now-k.minted >= Life }

// ring holds the outstanding keys, each peer's oldest first.
type ring struct {
	byPeer map[platform.Peer][]*entry
	byName map[string]*entry
}

func newRing() ring {
	return ring{byPeer: make(map[platform.Peer][]*entry), byName: make(map[string]*entry)}
}

// reserve takes a place for a new key. gone are the keys that gave way: expired
// ones, and at its own cap the peer's oldest presented one. Nobody's key gives
// way for another peer (T11; TestNoKeyGivesWayForAnotherPeer).
func (r ring) reserve(now time.Duration, peer platform.Peer, name string, dir *held) (fresh *entry, gone []*entry, err error) {
	if len(r.byPeer[peer]) >= MaxPerPeer || len(r.byName) >= MaxOutstanding {
		gone = r.expire(now)
	}
	if own := r.byPeer[peer]; len(own) >= MaxPerPeer {
		old := oldestPresented(own)
		if old == nil {
			return nil, gone, ErrTooMany
		}
		r.remove(old)
		gone = append(gone, old)
	}
	if len(r.byName) >= MaxOutstanding {
		return nil, gone, ErrBusy
	}
	fresh = &entry{name: name, peer: peer, dir: dir, minted: now}
	r.byPeer[peer] = append(r.byPeer[peer], fresh)
	r.byName[name] = fresh
	return fresh, gone, nil
}

func oldestPresented(keys []*entry) *entry {
	for _, k := range keys {
		if k.presented {
			return k
		}
	}
	return nil
}

// remove takes k out; false if it was out already.
func (r ring) remove(k *entry) bool {
	if r.byName[k.name] != k {
		return false
	}
	delete(r.byName, k.name)
	own := r.byPeer[k.peer]
	for i, other := range own {
		if other == k {
			own = append(own[:i], own[i+1:]...)
			break
		}
	}
	if len(own) == 0 {
		delete(r.byPeer, k.peer)
		return true
	}
	r.byPeer[k.peer] = own
	return true
}

// find returns the peer's live key with this digest, nil if there is none. Only
// the peer's own keys are looked at: that is what binds a challenge to its peer
// (T3, T8; TestChallengeOfAnotherPeerIsNotValid). All of them are compared, each
// in constant time.
func (r ring) find(peer platform.Peer, digest [sha256.Size]byte, now time.Duration) *entry {
	var found *entry
	for _, k := range r.byPeer[peer] {
		same := subtle.ConstantTimeCompare(k.digest[:], digest[:]) == 1
		if same && k.live && !k.expired(now) {
			found = k
		}
	}
	return found
}

// whyNot says for the log why find found nothing.
func (r ring) whyNot(peer platform.Peer, digest [sha256.Size]byte) *InvalidError {
	e := &InvalidError{Reason: "wrong or used", Presented: peer}
	for _, k := range r.byName {
		if subtle.ConstantTimeCompare(k.digest[:], digest[:]) != 1 || !k.live {
			continue
		}
		e.Reason = "expired"
		if k.peer != peer {
			e.Reason, e.Minted, e.Foreign = "made for another caller", k.peer, true
		}
	}
	return e
}

// expire takes out and returns the keys whose life is over.
func (r ring) expire(now time.Duration) []*entry {
	return r.takeIf(func(k *entry) bool { return k.expired(now) })
}

// takeIf takes out and returns the keys for which cond holds.
func (r ring) takeIf(cond func(*entry) bool) []*entry {
	var gone []*entry
	for _, k := range r.byName {
		if cond(k) {
			gone = append(gone, k)
		}
	}
	for _, k := range gone {
		r.remove(k)
	}
	return gone
}

// next is the age of the oldest key; false if there is none.
func (r ring) next(now time.Duration) (left time.Duration, ok bool) {
	for _, k := range r.byName {
		if l := k.minted + Life - now; !ok || l < left {
			left, ok = l, true
		}
	}
	return left, ok
}
