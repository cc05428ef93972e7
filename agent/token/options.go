package token

import (
	"log/slog"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

// Selector says which identity a request means; its keys are those of the wire.
type Selector = credential.Selector

// Identities is what the broker asks of the identities on this device.
// *credential.Device satisfies it. All methods are safe for concurrent use;
// Standing answers from memory, since it is asked for every token.
type Identities interface {
	Standing(clientID string) (credential.Standing, bool)
	Resolve(s Selector) (credential.Standing, error)
	List() []credential.Standing
	// Observe takes the outcome of a token call made with a credential.
	Observe(clientID string, with *credential.Credential, err error)
}

// Options are what a Broker is built from.
type Options struct {
	Identities Identities
	Issuer     Issuer
	Clock      *lifecycle.Clock
	Contact    *lifecycle.Contact // may be nil: then the end of an outage is only noticed by the next try
	Cache      *store.Cache       // may be nil: memory only
	Grants     *Grants            // may be nil: everything is allowed
	Limits     Limits
	Log        *slog.Logger // may be nil
	// Audit is told of each token handed out or refused, outside all locks and
	// on the hot path: it must not block. May be nil.
	Audit func(Event)
}

// Limits are the configurable bounds; zero means the default.
type Limits struct {
	Entries int // tokens in the cache, 128
	PerPeer int // of them for one peer, counted for whoever asked first, 32
}

const (
	defaultEntries = 128 // firmware-notes/limits.md
	defaultPerPeer = 32
)

func (l Limits) withDefaults() Limits {
	if l.Entries <= 0 {
		l.Entries = defaultEntries
	}
	if l.PerPeer <= 0 {
		l.PerPeer = defaultPerPeer
	}
	return l
}

// EventName is what happened, in the words of the audit record.
type EventName string

// The two events of the broker.
const (
	TokenIssued EventName = "token-issued"
	TokenDenied EventName = "token-denied"
)

// Event is a token handed out or refused to a caller. It is a value; the
// strings of Request were written by the caller and are not cleaned.
type Event struct {
	Name     EventName
	Time     time.Time // wall clock, UTC
	Reason   string    // "grant 2", "no grants configured", "no grant names uid:1001"
	Request  Request
	Identity credential.Identity
	Source   string    // "cache" or "fetched"; empty for a denial
	Token    string    // first 8 hex digits of the token's SHA-256; empty for a denial
	Expires  time.Time // on our wall clock; zero for a denial
}

// Where a token came from.
const (
	sourceCache   = "cache"
	sourceFetched = "fetched"
)
