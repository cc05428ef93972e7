package token

import (
	"context"
	"errors"
	"time"

	"postern/agent/credential"
	"postern/platform"
	"postern/store"
)

// Caller is who asks, as far as the asking room could find out.
type Caller struct {
	Peer     platform.Peer // decides; Unknown matches no grant that names an account
	Listener string        // "127.0.0.1:40342", "workload:web", "control": may decide
	Agent    string        // User-Agent, at most 256 bytes: audit only
}

// Request asks for a token. The cache key is (ClientID, Resource).
type Request struct {
	ClientID string // of an identity on this device
	Resource string // as asked, 1 to 2048 printable ASCII characters
	Caller   Caller
	Flavour  string // "arc", "imds", "appservice", "control": audit and metrics
	// Refresh goes past the cache, at most once a minute for each key.
	Refresh bool
	// RefreshDigest, if it is the lower-case hex SHA-256 of the cached token, acts as Refresh.
	RefreshDigest string
}

// Token is an answer of the broker.
type Token struct {
	Value     store.Secret
	Identity  credential.Identity
	Resource  string
	Remaining time.Duration // true remaining life: the smaller of wall-based and boot-based
	ExpiresOn time.Time     // what the caller should compare with its wall clock: now + Remaining
	NotBefore time.Time     // when it was issued, on the same clock
	FromCache bool
}

// Issued is what an Issuer returns: a token that was just made.
type Issued struct {
	Value     store.Secret
	ExpiresIn time.Duration // 0 < n <= 25 h
}

// Issuer trades a credential for a token. Driver: authority/oauth. Every error
// is or wraps a *lifecycle.Error. Implementations are safe for concurrent use
// and pass the suite in authority/authoritytest.
type Issuer interface {
	Issue(ctx context.Context, with *credential.Credential, resource string) (Issued, error)
}

// What callers of the broker branch on. Errors of an authority are
// *lifecycle.Error; errors by state are *StateError.
var (
	ErrUnknownIdentity = credential.ErrUnknownIdentity
	ErrAmbiguous       = credential.ErrAmbiguous
	ErrNotGranted      = errors.New("caller is not granted") // see GrantError
	ErrTooMany         = errors.New("too many requests")     // see LimitError
)
