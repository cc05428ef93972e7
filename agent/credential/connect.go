package credential

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"postern/agent/lifecycle"
	"postern/store"
)

// Onboarding is what a person brings to connect a device.
type Onboarding struct {
	AuthorityURL string       // base URL of the authority
	RootPEM      string       // its root, exactly one certificate; the only one believed from then on
	RootSHA256   string       // lower-case hex over the root's DER; checked if given
	Claim        store.Secret // the one-time secret; never stored
	// Identity is given for authorities that keep no assignments; otherwise the
	// certificate and the authority's list say who this device is. With Kind
	// UserAssigned, Connect adds that identity to a device that is connected.
	Identity Identity
	Steps    func(string) // told about each stage, one line; nil: nobody
}

func (o Onboarding) step(format string, args ...any) {
	if o.Steps != nil {
		o.Steps(fmt.Sprintf(format, args...))
	}
}

// Connect gives the device its identity, with a new key. Nothing is stored
// before the certificate is verified: a failure leaves no trace (ID10). A
// device that is connected, or whose identity cannot be read, is refused with
// the command that fits. Errors are *Problem.
func (d *Device) Connect(ctx context.Context, o Onboarding) (Standing, error) {
	return d.onboard("connect", func() (string, error) {
		if err := d.mayConnect(o); err != nil {
			return "", err
		}
		dev, add := d.Enrolment()
		if !add {
			dev = store.DeviceRecord{AuthorityURL: o.AuthorityURL, RootPEM: o.RootPEM, RootSHA256: strings.ToLower(o.RootSHA256)}
		}
		return d.admit(ctx, o, dev, nil, nil)
	})
}

// Reconnect gives the device's identity a new key and certificate by an
// onboarding secret: the way out of Expired, Rejected and Damaged and the cure
// for exposed keys. The identity stays who it is. The old certificate, if it
// still lives, is withdrawn; keys of user-assigned identities that were
// exposed are withdrawn and destroyed, to be enrolled anew. Errors are *Problem.
func (d *Device) Reconnect(ctx context.Context, o Onboarding) (Standing, error) {
	return d.onboard("reconnect", func() (string, error) { return d.reconnect(ctx, o) })
}

// onboard is what connect and reconnect share: one at a time, one event, one
// kind of error.
func (d *Device) onboard(op string, work func() (string, error)) (Standing, error) {
	end, err := d.begin(op)
	if err != nil {
		return Standing{}, err
	}
	defer end()
	id, err := work()
	if err != nil {
		p := d.problem(op, err)
		d.emit(Event{Kind: EventOnboardingFailed, Class: lifecycle.ClassOf(err), Reason: words(p), Fix: p.Fix})
		return Standing{}, p
	}
	st, _ := d.Standing(id)
	d.emit(Event{Kind: EventConnected, Identity: st.Identity, State: st.State, Until: st.NotAfter, Reason: op})
	return st, nil
}

// mayConnect refuses what connect must not touch.
func (d *Device) mayConnect(o Onboarding) error {
	st, known := d.System()
	d.mu.RLock()
	damaged, enrolled, moved := d.damaged, d.enrolled, d.moved
	extra := d.holders[strings.ToLower(o.Identity.ClientID)]
	d.mu.RUnlock()
	switch {
	case damaged != nil:
		return stateProblem("connect", st)
	case !enrolled:
		return nil
	case moved:
		return stateProblem("connect", Standing{State: lifecycle.Moved, Reason: "the card holds another device's identity", Fix: fixAdopt})
	case st.Exposed != "":
		return stateProblem("connect", st)
	case o.Identity.Kind == UserAssigned && (extra == nil || extra.Current() == nil):
		return nil
	}
	p := &Problem{ID: "already-connected", Op: "connect", Fix: fixDisconnect, Err: ErrConnected}
	if known {
		p.Err = fmt.Errorf("%w, as %s (%s)", ErrConnected, label(st.Identity), st.State)
		if st.Fix == fixReconnect { // Expired, Rejected, or a key that does not fit
			p.Fix = fixReconnect
		}
	}
	return p
}

// admit enrols one identity at dev's authority and stores it. before is its
// record, nil if it is new; drop are user-assigned identities whose keys go
// with it. The result is the client id.
func (d *Device) admit(ctx context.Context, o Onboarding, dev store.DeviceRecord, before *store.IdentityRecord, drop []*Credential) (string, error) {
	auth, key, chain, err := d.enroll(ctx, o, &dev, before)
	if err != nil {
		return "", err
	}
	rec, err := d.newRecord(o, chain[0], before)
	if err != nil {
		return "", err
	}
	key.Chain = rawChain(chain)
	rec.Current = &key
	if old := d.alive(before); old != nil {
		// It is withdrawn in the background, and never used again: a credential
		// that a person brought needs no token to prove itself.
		rec.Previous, rec.Current.Proven = old, d.clock.Now().Wall
	}
	// Until the authority says otherwise: a cut before it was asked must not
	// leave a device that never asks.
	dev.Assignments = dev.Assignments || canAssign(auth)
	if err := d.settle(dev, rec, drop); err != nil {
		return "", err
	}
	d.mu.Lock()
	d.auth = auth
	d.beat = beat{at: d.clock.Now().Boot + d.nextBeat()}
	d.mu.Unlock()
	o.step("stored: %s, protected by %s", label(identityOf(rec)), key.Protection)
	d.withdrawDropped(ctx, auth, drop, o)
	d.learn(ctx, auth, rec, o)
	return rec.ClientID, nil
}

// enroll makes the key and trades the claim for a verified certificate. dev
// gets what was found out on the way.
func (d *Device) enroll(ctx context.Context, o Onboarding, dev *store.DeviceRecord, before *store.IdentityRecord) (Authority, store.KeyRecord, []*x509.Certificate, error) {
	fail := func(err error) (Authority, store.KeyRecord, []*x509.Certificate, error) {
		return nil, store.KeyRecord{}, nil, err
	}
	_, root, err := pinned(*dev)
	if err != nil {
		return fail(&Problem{ID: "root-mismatch", Op: "root", Fix: fixRoot, Err: err})
	}
	dev.RootSHA256 = certPrint(root)
	auth, err := d.o.Dial(*dev)
	if err != nil {
		return fail(&Problem{ID: "authority-url", Op: "dial", Err: err})
	}
	clock := d.clock.Now()
	o.step("clock: %s, %s", stamp(clock.Wall), clock.Reason)
	key, signer, err := d.newKey(func(s string) { o.step("%s", s) })
	if err != nil {
		return fail(err)
	}
	o.step("key: made on this device")
	chain, err := d.trade(ctx, auth, signer, o.Claim)
	if err != nil {
		return fail(err)
	}
	if err := d.verifyFor(*dev, chain, signer.Public(), nil); err != nil {
		return fail(err)
	}
	if err := sameIdentity(chain[0], before); err != nil {
		return fail(err)
	}
	o.step("authority: %s", dev.AuthorityURL)
	o.step("certificate: %s", lifeOf(chain[0]))
	return auth, key, chain, nil
}

// trade makes the one call that spends a claim.
func (d *Device) trade(ctx context.Context, auth Authority, signer crypto.Signer, claim store.Secret) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	chain, err := auth.Enroll(ctx, signer, claim)
	d.heard(err)
	return chain, err
}

// sameIdentity keeps reconnect from becoming somebody else by a claim that was
// made for another machine.
func sameIdentity(leaf *x509.Certificate, before *store.IdentityRecord) error {
	if before == nil || before.Current == nil {
		return nil
	}
	chain, err := parseChain(before.Current.Chain)
	if err != nil || leaf.Subject.CommonName == chain[0].Subject.CommonName {
		return nil //nolint:nilerr // what cannot be read names nobody, and is being replaced
	}
	return &Problem{
		ID: "claim-of-another", Op: "claim", Fix: fixReclaim,
		Err: fmt.Errorf("%w: the claim is for %q, this identity is %q", ErrCertificate, leaf.Subject.CommonName, chain[0].Subject.CommonName),
	}
}

// The names that a site authority writes into certificates (firmware-notes/authorities.md).
const (
	IdentityURN = "urn:postern:identity:" // before the object id
	MachineURN  = "urn:postern:machine:"  // before the machine's id
)

// newRecord says who the certificate makes this device.
func (d *Device) newRecord(o Onboarding, leaf *x509.Certificate, before *store.IdentityRecord) (store.IdentityRecord, error) {
	cn := leaf.Subject.CommonName
	id := Identity{Kind: SystemAssigned, Name: cn, ClientID: cn, ObjectID: uri(leaf, IdentityURN)}
	if before != nil {
		id = merge(id, identityOf(*before))
		id.Kind, id.ClientID = Kind(before.Kind), before.ClientID
	}
	if o.Identity.Kind != "" {
		id.Kind = o.Identity.Kind
	}
	if o.Identity.ClientID != "" {
		id.ClientID = o.Identity.ClientID
	}
	id = lower(merge(id, o.Identity))
	if !validID(id.ClientID) {
		return store.IdentityRecord{}, &Problem{ID: "client-id", Op: "identity", Err: fmt.Errorf("%w: its common name %.80q cannot be a client id", ErrCertificate, cn)}
	}
	return recordOf(id), nil
}

// settle stores device and identity in one commit. A file that cannot be read
// gives way to a new one only now, when there is something to put there.
func (d *Device) settle(dev store.DeviceRecord, rec store.IdentityRecord, drop []*Credential) error {
	unsaid := "" // an exposure that the new keys cure
	if _, more := d.Enrolment(); !more || Kind(rec.Kind) == SystemAssigned || dev.Exposed != "" {
		dev.Fingerprint, dev.Exposed = d.findParts(), ""
		dev.ETag, dev.ConnectedAt = "", d.clock.Now().Wall
		unsaid = d.swapExposure("")
	}
	err := d.replaceDamaged()
	if err == nil {
		err = d.commit(func(tx *store.IdentityTx) error {
			if err := tx.PutDevice(dev); err != nil {
				return err
			}
			for _, c := range drop {
				if err := tx.PutIdentity(recordOf(c.Identity)); err != nil {
					return err
				}
			}
			return tx.PutIdentity(rec)
		})
	}
	if err != nil {
		d.swapExposure(unsaid)
		return &Problem{ID: "store", Op: "store", Fix: fixStore, Err: err}
	}
	return nil
}

func (d *Device) replaceDamaged() error {
	d.mu.RLock()
	damaged := d.damaged != nil
	d.mu.RUnlock()
	if !damaged {
		return nil
	}
	if err := d.file.Destroy(); err != nil {
		return err
	}
	d.forget()
	return nil
}

// learn asks the authority which identities are this device's. The device is
// connected already: what cannot be learnt now, the loop learns later.
func (d *Device) learn(ctx context.Context, auth Authority, rec store.IdentityRecord, o Onboarding) {
	as, ok := auth.(Assigner)
	h, held := d.Holder(rec.ClientID)
	if !ok || !held || Kind(rec.Kind) != SystemAssigned {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := as.Assignments(ctx, h.Current(), "")
	d.heard(contactOnly(err))
	switch {
	case errors.Is(err, ErrNoAssignments):
		o.step("identities: the authority keeps no assignments")
		_ = d.changeDevice("store assignments", func(dev *store.DeviceRecord) { dev.Assignments = false }) // logged there
		return
	case err == nil && d.clock.Now().Trusted:
		err = d.applyAll(ctx, auth, list)
	}
	if err != nil {
		o.step("identities: not known yet, asked again soon: %s", words(err))
		d.planBeat(err)
		return
	}
	o.step("identities: %d", len(list.Identities))
}

// alive returns the key in use if it can be used to withdraw its certificate,
// which has not ended yet; else nil.
func (d *Device) alive(rec *store.IdentityRecord) *store.KeyRecord {
	if rec == nil || rec.Current == nil {
		return nil
	}
	old := *rec.Current
	c, err := credentialOf(identityOf(*rec), old)
	if err != nil || !d.clock.VerifyTime().Before(c.Leaf().NotAfter) {
		return nil
	}
	old.Retired = false
	return &old
}

// pinned returns the one root that is believed.
func pinned(dev store.DeviceRecord) (*x509.CertPool, *x509.Certificate, error) {
	block, rest := pem.Decode([]byte(dev.RootPEM))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, nil, fmt.Errorf("no root certificate of %s is known", dev.AuthorityURL)
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, nil, errors.New("more than one root certificate; exactly one is pinned")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("root certificate: %w", err)
	}
	if found := certPrint(root); dev.RootSHA256 != "" && !strings.EqualFold(dev.RootSHA256, found) {
		return nil, nil, fmt.Errorf("the root certificate has the SHA-256 %s, expected is %.64q", found, dev.RootSHA256)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return pool, root, nil
}
