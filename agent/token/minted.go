package token

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"postern/agent/lifecycle"
	"postern/platform"
	"postern/store"
)

// key is what a token is for. Two requests with one key share one token,
// whatever selector they used.
type key struct{ clientID, resource string }

// slot is one key's place in the cache. It outlives its tokens, so that a
// resource that was in use before an outage is known when the outage ends.
type slot struct {
	key      key
	owner    platform.Peer // whoever asked first: its quota pays
	lastUsed atomic.Int64  // boot-time clock, ns, of the last request
	forced   atomic.Int64  // boot-time clock, ns, of the last forced refresh; 0 if never

	minted    *minted       // guarded by Broker.mu; never nil
	savedUse  int64         // lastUsed as it was last written; guarded by Broker.mu
	usedAt    time.Time     // last request of an earlier boot, until a clock can say how long ago; guarded by Broker.mu
	attempt   int           // failed tries in a row; guarded by Broker.mu
	notBefore time.Duration // boot-time clock: no try for a fresher one before it; guarded by Broker.mu
	spread    time.Duration // boot-time clock: no background try before it; guarded by Broker.mu
	called    bool          // a round of refreshes has begun, and it is one of them; guarded by Broker.mu
	lastError string        // of the last try, empty after a success; guarded by Broker.mu
}

// unused is for how long nobody has asked.
func (s *slot) unused(now lifecycle.Instant) time.Duration {
	return now.Boot - time.Duration(s.lastUsed.Load())
}

// recall makes up for a start under a clock that was not believed: without it a
// board without a real-time clock would keep warm for good what nobody asks for.
func (s *slot) recall(now lifecycle.Instant) {
	if !now.Trusted || s.usedAt.IsZero() {
		return
	}
	used := int64(now.Boot - sinceUse(s.usedAt, now))
	if s.lastUsed.CompareAndSwap(s.savedUse, used) { // nobody has asked since
		s.savedUse = used
	}
	s.usedAt = time.Time{}
}

func (s *slot) touch(now lifecycle.Instant) { s.lastUsed.Store(int64(now.Boot)) }

// minted is a token with the two clocks at its birth. It is immutable.
type minted struct {
	value  store.Secret
	sum    [sha256.Size]byte
	digest string // first 8 hex digits of sum

	issued     time.Time
	expires    time.Time
	issuedBoot time.Duration
	bootID     string
	trusted    bool // issued was read from a trusted clock
}

// mint takes an issuer's answer in. at is read before the call was made: the
// authority counts the life from somewhere between then and the answer, and a
// token must never be believed for longer than it lives.
func mint(issued Issued, at lifecycle.Instant) *minted {
	return newMinted(issued.Value, minted{
		issued: at.Wall, expires: at.Wall.Add(issued.ExpiresIn),
		issuedBoot: at.Boot, bootID: at.BootID, trusted: at.Trusted,
	})
}

func newMinted(value store.Secret, m minted) *minted {
	m.value = value
	m.sum = sha256.Sum256([]byte(value.Reveal()))
	m.digest = hex.EncodeToString(m.sum[:4])
	return &m
}

// life is the whole life of the token.
func (m *minted) life() time.Duration { return m.expires.Sub(m.issued) }

// left is how long the token certainly lives on, by both clocks; 0 if that
// cannot be proven, in every state: what the wall clock of an earlier boot
// claimed is no ground to call a token alive. No token lives 0.
func (m *minted) left(now lifecycle.Instant) time.Duration {
	if m == nil {
		return 0
	}
	left, proven := lifecycle.Remaining(m.issued, m.expires, m.issuedBoot, m.bootID, now, m.trusted)
	if !proven || left < minLife {
		return 0
	}
	return left
}

// over reports whether the token is certainly of no more use. Under an
// untrusted clock a token of an earlier boot is not: the clock may yet be put
// right, and until then nothing is thrown away (firmware-notes/time.md).
func (m *minted) over(now lifecycle.Instant) bool {
	left, proven := lifecycle.Remaining(m.issued, m.expires, m.issuedBoot, m.bootID, now, m.trusted)
	if proven {
		return left < minLife
	}
	return now.Trusted
}

// matches reports whether hexSum is the lower-case hex SHA-256 of the token.
func (m *minted) matches(hexSum string) bool {
	return subtle.ConstantTimeCompare([]byte(hex.EncodeToString(m.sum[:])), []byte(hexSum)) == 1
}

// rebased is m on the clocks of now, if that can be said: the clock is trusted.
// A token that was taken before the clock was put right gets its true dates,
// or it would be useless after a restart; one of an earlier boot is tied to the
// boot-time clock of this one, or it would be useless if trust were lost.
// Otherwise it is m itself.
func (m *minted) rebased(now lifecycle.Instant) *minted {
	sameBoot := m.bootID != "" && m.bootID == now.BootID && now.Boot >= m.issuedBoot
	if !now.Trusted || m.trusted == sameBoot || now.BootID == "" {
		return m
	}
	r := *m
	if sameBoot {
		r.issued = now.Wall.Add(m.issuedBoot - now.Boot)
		r.expires, r.trusted = r.issued.Add(m.life()), true
	} else {
		r.bootID, r.issuedBoot = now.BootID, now.Boot-max(now.Wall.Sub(m.issued), 0)
	}
	return &r
}

const (
	minLife  = time.Second // what is less rounds to an expires_in of 0
	maxLife  = 25 * time.Hour
	maxToken = 32 << 10 // bytes
)

// checkIssued is the last look at what a driver returns: nothing that is not a
// live, printable token gets into the cache or into an answer, whatever the
// driver did (rolesanywhere-credential-helper PR#200: an empty credential
// served as success).
func checkIssued(issued Issued) error {
	value := issued.Value.Reveal()
	problem := ""
	switch {
	case value == "" || len(value) > maxToken:
		problem = fmt.Sprintf("the token has %d bytes, want 1 to %d", len(value), maxToken)
	case issued.ExpiresIn < minLife || issued.ExpiresIn > maxLife:
		problem = fmt.Sprintf("the token lives %v, want %v to %v", issued.ExpiresIn, minLife, maxLife)
	}
	for i := 0; i < len(value) && problem == ""; i++ {
		if value[i] <= ' ' || value[i] > '~' {
			problem = "the token has a character that is not printable"
		}
	}
	if problem == "" {
		return nil
	}
	return &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "token", Reason: problem}
}
