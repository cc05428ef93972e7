package powercut

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"postern/store"
)

// State is what a state directory holds, reduced to what a judgement needs.
type State struct {
	Exists   bool
	Identity string // sum over device and identities, keys and certificates included; Empty if there are none
	Cache    string // sum over tokens, contact and audit entries; Empty if there are none
	Serial   int64  // of the certificate in use; 0 if there is none
	Previous int64  // of the one before it
	Pending  bool   // a key waits for its certificate
	Round    uint64 // newest entry of the audit ring, which counts the rounds
}

// Empty is the sum of nothing.
const Empty = "none"

// StateOf reads what f and c hold. It fails for an identity that is damaged.
func StateOf(f *store.IdentityFile, c *store.Cache) (State, error) {
	s := State{Exists: f.Exists(), Identity: Empty, Cache: Empty}
	if err := f.Damaged(); err != nil {
		return s, err
	}
	if err := errors.Join(s.addIdentity(f), s.addCache(c)); err != nil {
		return State{}, err
	}
	return s, nil
}

func (s *State) addIdentity(f *store.IdentityFile) error {
	dev, err := f.Device()
	if errors.Is(err, store.ErrNotFound) && !s.Exists {
		return nil
	}
	if err != nil {
		return err
	}
	list, err := f.Identities()
	if err != nil {
		return err
	}
	for _, id := range list {
		s.Pending = s.Pending || id.Pending != nil
		serial, err1 := serialOf(id.Current)
		before, err2 := serialOf(id.Previous)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		s.Serial, s.Previous = max(s.Serial, serial), max(s.Previous, before)
	}
	s.Identity, err = sum(dev, list)
	return err
}

func (s *State) addCache(c *store.Cache) error {
	tokens, contact := c.Tokens(), c.Contact()
	var ring []store.AuditEntry
	err := c.Audit(0, func(e store.AuditEntry) error {
		ring = append(ring, e)
		s.Round = e.Seq
		return nil
	})
	if err != nil {
		return fmt.Errorf("audit ring: %w", err)
	}
	if len(tokens) == 0 && len(ring) == 0 && contact == (store.ContactRecord{}) {
		return nil
	}
	s.Cache, err = sum(tokens, contact, ring)
	return err
}

func serialOf(k *store.KeyRecord) (int64, error) {
	if k == nil || len(k.Chain) == 0 {
		return 0, nil
	}
	leaf, err := x509.ParseCertificate(k.Chain[0])
	if err != nil {
		return 0, err
	}
	return leaf.SerialNumber.Int64(), nil
}

func sum(parts ...any) (string, error) {
	h := sha256.New()
	for _, p := range parts {
		text, err := json.Marshal(p)
		if err != nil {
			return "", err
		}
		_, _ = h.Write(append(text, '\n')) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil)[:12]), nil
}

// Allowed says whether the state may be found when last was the newest mark
// before the cut: exactly what was acknowledged, or that and the effect of what
// was under way. next is the mark that came after it in the recording; nil if
// nobody knows it, then the effect is judged by its kind.
func (s State) Allowed(last Mark, next *Mark) error {
	var errs []error
	if s.Identity != last.Identity && !s.identityMoved(last, next) {
		errs = append(errs, fmt.Errorf("identity: want %s as of mark %d (%s, certificate %d), found %s: exists %v, certificate %d, pending %v",
			last.Identity, last.Seq, last.What, last.Serial, s.Identity, s.Exists, s.Serial, s.Pending))
	}
	if s.Cache != last.Cache && !s.cacheMoved(last, next) {
		errs = append(errs, fmt.Errorf("cache: want %s as of mark %d (%s, round %d), found %s: round %d",
			last.Cache, last.Seq, last.What, last.Round, s.Cache, s.Round))
	}
	return errors.Join(errs...)
}

func (s State) identityMoved(last Mark, next *Mark) bool {
	if next != nil {
		return s.Identity == next.Identity
	}
	switch last.Next {
	case Connected:
		return s.Exists && s.Serial == last.Serial+1
	case Pending:
		return s.Exists && s.Pending && s.Serial == last.Serial
	case Renewed:
		return s.Exists && !s.Pending && s.Serial == last.Serial+1 && s.Previous == last.Serial
	case Disconnected:
		return !s.Exists
	}
	return false
}

func (s State) cacheMoved(last Mark, next *Mark) bool {
	if next != nil {
		return s.Cache == next.Cache
	}
	switch last.Next {
	case Refreshed:
		return s.Round == last.Round+1
	case Disconnected:
		return s.Cache == Empty
	}
	return false
}
