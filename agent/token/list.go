package token

import (
	"cmp"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"postern/agent/credential"
	"postern/platform"
)

// Cached is one key of the cache, for status. The token itself is never shown.
type Cached struct {
	ClientID string
	Resource string
	Live     bool          // there is a token, and its life is proven
	Held     bool          // there is a token, and only a right clock can say whether it lives
	Left     time.Duration // of a live token
	Expires  time.Time     // of a live token, on our wall clock as it is
	Unused   time.Duration // since the last request
	Owner    platform.Peer // whoever asked first
	Attempts int           // failed tries for a fresher token, in a row
	Problem  string        // of the last try; empty after a success
}

// List returns the cache, sorted by client id and resource.
func (b *Broker) List() []Cached {
	now := b.now()
	b.mu.RLock()
	defer b.mu.RUnlock()
	list := make([]Cached, 0, len(b.slots))
	for k, s := range b.slots {
		c := Cached{
			ClientID: k.clientID, Resource: k.resource, Left: s.minted.left(now), Unused: s.unused(now),
			Owner: s.owner, Attempts: s.attempt, Problem: s.lastError,
		}
		if c.Live = c.Left > 0; c.Live {
			c.Expires = now.Wall.Add(c.Left)
		}
		c.Held = s.minted != nil && !c.Live && !s.minted.over(now)
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool {
		a, c := list[i], list[j]
		return cmp.Or(cmp.Compare(a.ClientID, c.ClientID), cmp.Compare(a.Resource, c.Resource)) < 0
	})
	return list
}

// Stats are counts since the start, and how full the bounded parts are.
type Stats struct {
	Requests       uint64
	Cached         uint64 // answered from memory
	Fetched        uint64 // answered with a token that was just fetched
	RefusedByGrant uint64
	RefusedByState uint64
	RefusedByLimit uint64
	Upstream       uint64 // calls to the issuer
	Failed         uint64 // of them without a token
	Commits        uint64 // rounds that were written

	Entries  int // keys in the cache
	Refusals int // answers of the authority that are remembered
	Flights  int // fetches under way
}

type counters struct {
	requests, cached, fetched, upstream, failed, commits atomic.Uint64

	refusedByGrant, refusedByState, refusedByLimit atomic.Uint64
}

// Stats returns the counts.
func (b *Broker) Stats() Stats {
	b.mu.RLock()
	defer b.mu.RUnlock()
	c := &b.count
	return Stats{
		Requests: c.requests.Load(), Cached: c.cached.Load(), Fetched: c.fetched.Load(),
		RefusedByGrant: c.refusedByGrant.Load(), RefusedByState: c.refusedByState.Load(), RefusedByLimit: c.refusedByLimit.Load(),
		Upstream: c.upstream.Load(), Failed: c.failed.Load(), Commits: c.commits.Load(),
		Entries: len(b.slots), Refusals: len(b.refusals.entries), Flights: len(b.flights),
	}
}

// Forget drops all tokens of an identity from memory, and from the file with
// the next write: after disconnect, reconnect, and when an identity was taken
// off this device. Fetches under way for it come to nothing.
func (b *Broker) Forget(clientID string) {
	b.mu.Lock()
	for k := range b.slots {
		if k.clientID == clientID {
			b.dropLocked(k)
		}
	}
	for k, f := range b.flights {
		if k.clientID == clientID {
			f.dropped = true
			delete(b.flights, k)
		}
	}
	b.refusals.forgetIdentity(clientID)
	b.mu.Unlock()
	b.poke()
}

const maxLogged = 256 // bytes of a foreign string in a log line

// cut shortens a foreign string to n bytes of valid text.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// grantCommand is the command that would allow r. The resource stands in it
// only if it means nothing to a shell: somebody will paste the line.
func grantCommand(r *Request, id credential.Identity) string {
	if r.Caller.Peer == platform.Unknown {
		return "postern check --verbose"
	}
	identity, resource := id.ClientID, r.Resource
	if id.Kind == credential.SystemAssigned {
		identity = systemIdentity
	}
	if !pasteable(resource) {
		resource = "RESOURCE"
	}
	if !pasteable(identity) {
		identity = "IDENTITY"
	}
	return "sudo postern grant " + string(r.Caller.Peer) + " --identity " + identity + " --resource " + resource
}

func pasteable(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(":/._-", c) >= 0:
		default:
			return false
		}
	}
	return s != "" && s[0] != '-' && len(s) <= maxLogged
}
