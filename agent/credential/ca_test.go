package credential

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

const (
	systemID = "7b1e4c1c-0000-4000-8000-000000000001"
	userID   = "5f0d9a3e-0000-4000-8000-000000000002"
	otherID  = "9c2b77aa-0000-4000-8000-000000000003"
	machine  = "gw-0042"
	authURL  = "https://ca.test"
)

// authority is a small certificate authority in memory, with the rules of the
// real ones and every fault that a test asks for. It lives on true time; the
// device's clock may say something else.
type authority struct {
	mu      sync.Mutex
	rootKey *ecdsa.PrivateKey
	root    *x509.Certificate
	life    time.Duration
	clock   *lifecycle.Clock // told the Date of every answer; nil: no answer has one
	ahead   time.Duration    // of the authority's own clock

	serial     int64
	claims     map[string]Identity // one-time secrets that are left
	identities map[string]Identity
	generation uint64
	offer      map[string]string // client id -> one-time secret that the list offers
	revoked    map[string]bool   // serials
	deleted    map[string]bool   // client ids
	replays    bool              // a spent secret is good for the key it was spent on
	spent      map[string]string // secret -> key

	// fail, if set, decides about a call before anything happens; lose about
	// its answer, after everything happened.
	fail func(call string) error
	lose func(call string) error
	// forge changes a certificate before it is signed; mangle the answer.
	forge  func(*x509.Certificate)
	mangle func([]*x509.Certificate) []*x509.Certificate
	calls  []string
	etags  []string        // that lists were asked for with
	keys   map[string]bool // public keys that certificates were asked for
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(150, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	root, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{
		rootKey: key, root: root, life: 90 * lifecycle.Day, serial: 100, generation: 1,
		claims: map[string]Identity{}, identities: map[string]Identity{}, offer: map[string]string{},
		revoked: map[string]bool{}, deleted: map[string]bool{}, spent: map[string]string{}, keys: map[string]bool{},
	}
}

func (a *authority) rootPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}))
}

func (a *authority) rootSHA256() string {
	sum := sha256.Sum256(a.root.Raw)
	return hex.EncodeToString(sum[:])
}

// claim makes a one-time secret for an identity.
func (a *authority) claim(id Identity) store.Secret {
	a.mu.Lock()
	defer a.mu.Unlock()
	return store.NewSecret(a.claimLocked(id))
}

func (a *authority) claimLocked(id Identity) string {
	a.serial++
	s := "claim-" + strconv.FormatInt(a.serial, 10)
	a.claims[s] = id
	return s
}

// assign puts a user-assigned identity on the device's list and offers its enrolment.
func (a *authority) assign(id Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.generation++
	a.identities[id.ClientID] = id
	a.offer[id.ClientID] = a.claimLocked(id)
}

func (a *authority) unassign(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.generation++
	delete(a.identities, id)
	delete(a.offer, id)
}

// set changes the faults.
func (a *authority) set(change func(*authority)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

func (a *authority) count(call string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, c := range a.calls {
		if c == call {
			n++
		}
	}
	return n
}

func (a *authority) total() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.calls)
}

func (a *authority) isRevoked(c *Credential) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.revoked[c.Leaf().SerialNumber.String()]
}

func (a *authority) now() time.Time { return time.Now().Add(a.ahead) }

// begin counts a call and lets faults and the Date happen.
func (a *authority) begin(ctx context.Context, call string) error {
	a.calls = append(a.calls, call)
	if err := ctx.Err(); err != nil {
		return err
	}
	if a.fail != nil {
		if err := a.fail(call); err != nil {
			return err
		}
	}
	if a.clock != nil {
		a.clock.Observe(a.now())
	}
	return nil
}

func (a *authority) end(call string) error {
	if a.lose != nil {
		return a.lose(call)
	}
	return nil
}

func refusal(class lifecycle.Class, op, reason string) error {
	return &lifecycle.Error{Class: class, Op: "fake: " + op, Reason: reason, Answered: class != lifecycle.ClassTransient}
}

var errDown = &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "fake: dial", Err: errors.New("connection refused")}

func down(string) error { return errDown }

// valid is what the authority's TLS does with a client certificate.
func (a *authority) valid(c *Credential) error {
	switch leaf := c.Leaf(); {
	case a.revoked[leaf.SerialNumber.String()], a.deleted[c.Identity.ClientID]:
		return refusal(lifecycle.ClassRejected, "tls", "certificate revoked")
	case !a.now().Before(leaf.NotAfter):
		return refusal(lifecycle.ClassRejected, "tls", "certificate expired")
	}
	return nil
}

// Enroll implements Authority.
func (a *authority) Enroll(ctx context.Context, signer crypto.Signer, secret store.Secret) ([]*x509.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.begin(ctx, "enroll"); err != nil {
		return nil, err
	}
	id, ok := a.claims[secret.Reveal()]
	if !ok && a.replays && a.spent[secret.Reveal()] == keyPrint(signer.Public()) {
		return a.issue("enroll", a.identities[userID], signer.Public())
	}
	if !ok {
		return nil, refusal(lifecycle.ClassDenied, "enroll", "token already used")
	}
	delete(a.claims, secret.Reveal())
	a.spent[secret.Reveal()] = keyPrint(signer.Public())
	if a.offer[id.ClientID] == secret.Reveal() {
		delete(a.offer, id.ClientID)
	}
	a.identities[id.ClientID] = id
	delete(a.deleted, id.ClientID)
	return a.issue("enroll", id, signer.Public())
}

// Renew implements Authority.
func (a *authority) Renew(ctx context.Context, current *Credential, pending crypto.Signer) ([]*x509.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.begin(ctx, "renew"); err != nil {
		return nil, err
	}
	if err := a.valid(current); err != nil {
		return nil, err
	}
	return a.issue("renew", current.Identity, pending.Public())
}

func (a *authority) issue(call string, id Identity, pub crypto.PublicKey) ([]*x509.Certificate, error) {
	a.serial++
	a.keys[keyPrint(pub)] = true
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: id.ClientID},
		NotBefore: a.now().Add(-time.Minute), NotAfter: a.now().Add(a.life - time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{uriOf(IdentityURN + id.ObjectID)},
	}
	if a.forge != nil {
		a.forge(tmpl)
	}
	if own, ok := tmpl.PublicKey.(crypto.PublicKey); ok && own != nil {
		pub = own
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.root, pub, a.rootKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	chain := []*x509.Certificate{leaf, a.root}
	if a.mangle != nil {
		chain = a.mangle(chain)
	}
	return chain, a.end(call)
}

// Retire implements Authority.
func (a *authority) Retire(ctx context.Context, old *Credential) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.begin(ctx, "retire"); err != nil {
		return err
	}
	if err := a.valid(old); err != nil {
		return err
	}
	a.revoked[old.Leaf().SerialNumber.String()] = true
	return a.end("retire")
}

// Heartbeat implements Heartbeater.
func (a *authority) Heartbeat(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.begin(ctx, "heartbeat")
}

// Assignments implements Assigner.
func (a *authority) Assignments(ctx context.Context, current *Credential, etag string) (Assignments, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.etags = append(a.etags, etag)
	if err := a.begin(ctx, "assignments"); err != nil {
		return Assignments{}, err
	}
	if err := a.valid(current); err != nil {
		return Assignments{}, err
	}
	now := strconv.FormatUint(a.generation, 10)
	if etag == now && len(a.offer) == 0 {
		return Assignments{}, ErrNotModified
	}
	list := Assignments{ETag: now, Generation: a.generation}
	for _, id := range slices.Sorted(maps.Keys(a.identities)) {
		list.Identities = append(list.Identities, Assignment{Identity: a.identities[id], Enroll: store.NewSecret(a.offer[id])})
	}
	return list, a.end("assignments")
}

// plain hides the assignments: a real step-ca.
type plain struct{ *authority }

func (plain) Assignments(context.Context, *Credential, string) (Assignments, error) {
	return Assignments{}, ErrNoAssignments
}

func uriOf(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func systemIdentity() Identity {
	return Identity{
		Kind: SystemAssigned, Name: machine, ClientID: systemID, ObjectID: "0b1ec7aa-0000-4000-8000-00000000000a", TenantID: "7e7a0000-0000-4000-8000-000000000000",
		ResourceID: "/subscriptions/s/resourceGroups/g/providers/Microsoft.HybridCompute/machines/" + machine,
	}
}

func userIdentity(id, name string) Identity {
	return Identity{
		Kind: UserAssigned, Name: name, ClientID: id, ObjectID: "0b1ec7aa" + id[8:], TenantID: "7e7a0000-0000-4000-8000-000000000000",
		ResourceID: "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name,
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
