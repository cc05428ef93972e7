package token

import (
	"sync"
	"time"

	"postern/platform"
)

const (
	// accountsLife is how long a name is believed: a user taken out of a group
	// is refused at the latest after it.
	accountsLife = 30 * time.Second
	// maxAccounts bounds the answers that are kept. Peers are accounts of this
	// machine, so reaching it means thousands of users: then all are asked anew.
	maxAccounts = 1024
)

// accounts remembers what Accounts answered, so that a request for a cached
// token does not read /etc/passwd and /etc/group.
type accounts struct {
	lookup Accounts

	mu      sync.RWMutex
	answers map[accountQuestion]accountAnswer
}

type accountQuestion struct {
	peer platform.Peer // Unknown: the question is which peer name is
	name string
}

type accountAnswer struct {
	peer   platform.Peer // of a user
	member bool          // of a group
	until  time.Time
}

func newAccounts(lookup Accounts) *accounts {
	return &accounts{lookup: lookup, answers: make(map[accountQuestion]accountAnswer)}
}

// user resolves a user name, Unknown if there is none.
func (a *accounts) user(name string) platform.Peer {
	q := accountQuestion{name: name}
	if answer, ok := a.known(q); ok {
		return answer.peer
	}
	answer := accountAnswer{peer: a.lookup.Account(name)}
	a.keep(q, answer)
	return answer.peer
}

// member reports whether p, which is not Unknown, belongs to the group.
func (a *accounts) member(p platform.Peer, group string) bool {
	q := accountQuestion{peer: p, name: group}
	if answer, ok := a.known(q); ok {
		return answer.member
	}
	answer := accountAnswer{member: a.lookup.Member(p, group)}
	a.keep(q, answer)
	return answer.member
}

func (a *accounts) known(q accountQuestion) (accountAnswer, bool) {
	a.mu.RLock()
	answer, ok := a.answers[q]
	a.mu.RUnlock()
	return answer, ok && time.Now().Before(answer.until)
}

func (a *accounts) keep(q accountQuestion, answer accountAnswer) {
	answer.until = time.Now().Add(accountsLife)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.answers) >= maxAccounts {
		clear(a.answers)
	}
	a.answers[q] = answer
}
