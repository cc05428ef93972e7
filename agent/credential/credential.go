package credential

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"time"

	"postern/store"
)

// Kind says how an identity lives.
type Kind string

// The two kinds, spelled as on the wire.
const (
	SystemAssigned Kind = "SystemAssigned" // born and dies with the machine
	UserAssigned   Kind = "UserAssigned"   // has a life of its own, may be on many machines
)

// Identity names who a credential speaks for. It is a value; equal values are
// the same identity. GUIDs are lower case; ids of resources keep the
// authority's spelling.
type Identity struct {
	Kind       Kind
	Name       string
	ClientID   string // the key of an identity everywhere in this program
	ObjectID   string
	TenantID   string
	ResourceID string
}

// Credential is a private key with its certificate chain, for one identity.
// It is immutable and safe for concurrent use.
type Credential struct {
	Identity   Identity
	Signer     crypto.Signer
	Chain      []*x509.Certificate // leaf first, never empty
	Protection string              // where the key lives: "file", "credential", "dpapi", "tpm"
	Made       time.Time           // when the key was made
}

// Leaf is the identity's certificate.
func (c *Credential) Leaf() *x509.Certificate { return c.Chain[0] }

// Thumbprint is the unpadded base64url SHA-256 of the leaf (RFC 7515, x5t#S256).
func (c *Credential) Thumbprint() string {
	sum := sha256.Sum256(c.Leaf().Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// MachineID is the machine that the certificate is for, as a site authority
// names it; empty if it names none.
func (c *Credential) MachineID() string { return uri(c.Leaf(), MachineURN) }

// TLS returns the credential as a client certificate.
func (c *Credential) TLS() *tls.Certificate {
	t := &tls.Certificate{PrivateKey: c.Signer, Leaf: c.Leaf()}
	for _, cert := range c.Chain {
		t.Certificate = append(t.Certificate, cert.Raw)
	}
	return t
}

// Authority issues certificates. Drivers: authority/stepca. Every error is or
// wraps a *lifecycle.Error. Implementations are safe for concurrent use and
// pass the suite in authority/authoritytest.
type Authority interface {
	// Enroll trades an onboarding secret for a certificate over signer's
	// public key. The caller verifies nothing; VerifyChain is applied to the result.
	Enroll(ctx context.Context, signer crypto.Signer, onboarding store.Secret) ([]*x509.Certificate, error)
	// Renew proves possession of current and gets a certificate over pending's
	// public key, with the same names. It gets the signer and not only a CSR
	// because some authorities want a proof by the key itself.
	Renew(ctx context.Context, current *Credential, pending crypto.Signer) ([]*x509.Certificate, error)
	// Retire withdraws old, which is no longer in use. A failure is only a warning.
	Retire(ctx context.Context, old *Credential) error
}

// Assigner is an ability that an Authority may have: to say which identities
// belong to this device. A call doubles as the heartbeat.
type Assigner interface {
	// Assignments returns the list for the machine that current belongs to, or
	// ErrNotModified if it still has the given etag, or ErrNoAssignments if the
	// server does not know the call.
	Assignments(ctx context.Context, current *Credential, etag string) (Assignments, error)
}

// Heartbeater is the contact of authorities that are no Assigner: any answer
// that only the authority could give.
type Heartbeater interface {
	Heartbeat(ctx context.Context) error
}

// Assignments is the authority's answer to "which identities are mine".
type Assignments struct {
	ETag       string
	Generation uint64
	Identities []Assignment
}

// Assignment is one identity of the device. Enroll is the one-time secret with
// which its certificate can be had, empty when there is none to get.
type Assignment struct {
	Identity Identity
	Enroll   store.Secret
}

var (
	// ErrNotModified is returned by Assignments when nothing changed. It is contact.
	ErrNotModified = errors.New("assignments not modified")
	// ErrNoAssignments is returned by an authority that does not keep assignments.
	ErrNoAssignments = errors.New("the authority keeps no assignments")
)
