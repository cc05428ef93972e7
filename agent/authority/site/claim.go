package site

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/agent/authority/jws"
	"postern/store"
)

// provisioner is the name under which one-time tokens are issued.
const provisioner = "onboard"

// ClaimRequest asks for a claim: the right to connect one device once.
type ClaimRequest struct {
	Machine  string            `json:"machine"`            // name of the machine to be
	Group    string            `json:"group,omitempty"`    // "" means "default"
	Location string            `json:"location,omitempty"` // free text, may be empty
	Tags     map[string]string `json:"tags,omitempty"`
	Life     time.Duration     `json:"life,omitempty"` // 0 means 24 h; at most 30 days
	// Reonboard lets an existing machine have a new key: same identity, and
	// its old certificates are revoked when the claim is used.
	Reonboard bool `json:"reonboard,omitempty"`
}

// Claim is a one-time token of step-ca's kind: it alone is enough to connect,
// because its audience names the authority and "sha" its root.
type Claim struct {
	Token   store.Secret
	Machine string
	Expires time.Time
}

// oneTime are the claims of a one-time token.
type oneTime struct {
	ID       string       `json:"jti"`
	Issuer   string       `json:"iss"`
	Audience jws.Audience `json:"aud"`
	Subject  string       `json:"sub"`
	SANs     []string     `json:"sans"`
	SHA      string       `json:"sha"`
	IssuedAt jws.Time     `json:"iat,omitzero"`
	NotFrom  jws.Time     `json:"nbf,omitzero"`
	Expires  jws.Time     `json:"exp,omitzero"`
}

// CreateClaim mints a claim for the name of a machine. Nothing is made but the
// claim: whether the name is free is decided again when it is used. Errors:
// ErrInvalid; ErrExists if the machine is connected and Reonboard is not set;
// ErrNotFound if it is set and there is no such machine; ErrTooMany.
func (a *Authority) CreateClaim(ctx context.Context, req ClaimRequest) (Claim, error) {
	life := req.Life
	if life == 0 {
		life = claimLife
	}
	if life < 0 || life > claimLifeMost {
		return Claim{}, fmt.Errorf("claim of %v: %w: at most %v", life, ErrInvalid, claimLifeMost)
	}
	if err := checkName("machine", req.Machine); err != nil {
		return Claim{}, err
	}
	group, err := groupOr(req.Group)
	if err != nil {
		return Claim{}, err
	}
	if err := checkTags(req.Tags); err != nil {
		return Claim{}, err
	}
	r := claimRecord{
		JTI: newID(), Kind: claimOnboard, Machine: req.Machine, Group: group, Location: cut(req.Location, 128), Tags: maps.Clone(req.Tags),
		VMID: newGUID(), ClientID: newGUID(), ObjectID: newGUID(), By: principal(ctx),
	}
	err = a.update(ctx, func(t *tx) error {
		r.Made, r.Expires = t.now.UTC(), t.now.Add(life).UTC()
		if err := t.aim(&r, req.Reonboard); err != nil {
			return err
		}
		t.note(Entry{Action: "claim-created", Principal: r.By, Machine: r.Machine, ClientID: r.ClientID, JTI: r.JTI, Expires: r.Expires, Reason: r.Kind})
		return t.putClaim(r)
	})
	if err != nil {
		return Claim{}, fmt.Errorf("claim for %s: %w", req.Machine, err)
	}
	token, err := a.oneTimeToken(r)
	return Claim{Token: store.NewSecret(token), Machine: r.Machine, Expires: r.Expires}, err
}

// aim points a claim at the machine it is for.
func (t *tx) aim(r *claimRecord, reonboard bool) error {
	m, err := t.machineByName(r.Machine)
	if reonboard {
		if err != nil {
			return err
		}
		system, err := load[identityRecord](t, bucketIdentity, m.System)
		if err != nil {
			return err
		}
		r.Kind, r.Machine, r.Group = claimReonboard, m.Name, m.Group
		r.VMID, r.ClientID, r.ObjectID = m.VMID, system.ClientID, system.ObjectID
		return nil
	}
	if err == nil && m.Disconnected.IsZero() {
		return fmt.Errorf("%w; a claim with reonboard gives it a new key", ErrExists)
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// putClaim saves an operator's claim and sweeps those that are long over. (The
// tokens that fetch an assigned identity's certificate are one for each
// holding, and go with it.)
func (t *tx) putClaim(r claimRecord) error {
	const remembered = 30 * 24 * time.Hour
	var old []string
	live := 0
	err := each(t, bucketClaim, func(jti string, c claimRecord) error {
		switch {
		case c.Kind == claimEnroll:
		case t.now.After(c.Expires.Add(remembered)):
			old = append(old, jti)
		case c.Used.IsZero() && t.now.Before(c.Expires):
			live++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if live >= maxClaims {
		return fmt.Errorf("%w: %d claims are not used yet", ErrTooMany, live)
	}
	for _, jti := range old {
		if err := drop(t, bucketClaim, jti); err != nil {
			return err
		}
	}
	return save(t, bucketClaim, r.JTI, r)
}

func checkTags(tags map[string]string) error {
	if len(tags) > 50 {
		return fmt.Errorf("tags: %w: at most 50", ErrInvalid)
	}
	for k, v := range tags {
		if k == "" || len(k) > 512 || len(v) > 256 {
			return fmt.Errorf("tag %q: %w: name 1 to 512 bytes, value at most 256", cut(k, 40), ErrInvalid)
		}
	}
	return nil
}

// oneTimeToken writes the token of a claim. It can be written again as long as
// the claim stands: the id is what can be used once.
func (a *Authority) oneTimeToken(r claimRecord) (string, error) {
	return jws.Sign(a.claims.key, jws.ES256, map[string]string{"typ": "JWT", "kid": a.kid}, oneTime{
		ID: r.JTI, Issuer: provisioner, Audience: jws.Audience{a.base + "/1.0/sign"},
		Subject: r.ClientID, SANs: sansFor(r.ObjectID, r.VMID), SHA: a.RootSHA256(),
		IssuedAt: jws.Time{Time: r.Made}, NotFrom: jws.Time{Time: r.Made}, Expires: jws.Time{Time: r.Expires},
	})
}

// readOneTime checks everything about a one-time token that can be known
// without the ledger. Whether it was used is decided in the transaction that
// uses it.
func (a *Authority) readOneTime(compact string) (oneTime, error) {
	var c oneTime
	token, err := jws.Parse(compact, maxAssertion)
	if err != nil {
		return c, err
	}
	if err := token.Decode(&c); err != nil {
		return c, err
	}
	if token.Header.KeyID != a.kid || c.Issuer != provisioner {
		return c, errors.New("one-time token: issued by another provisioner")
	}
	if err := token.Verify(a.claims.key.Public(), jws.ES256); err != nil {
		return c, err
	}
	now := a.now()
	switch {
	case !slices.ContainsFunc(c.Audience, a.isSignURL):
		return c, fmt.Errorf("one-time token: audience %s", cut(fmt.Sprint(c.Audience), 200))
	case c.Expires.IsZero() || now.After(c.Expires.Add(ottLeeway)):
		return c, errors.New("one-time token: expired")
	case now.Before(c.NotFrom.Add(-ottLeeway)) || now.Before(c.IssuedAt.Add(-ottLeeway)):
		return c, errors.New("one-time token: not valid yet")
	case c.Subject == "" || c.ID == "":
		return c, errors.New("one-time token: sub or jti is missing")
	}
	return c, nil
}

// isSignURL compares an audience as step-ca does: any of the authority's
// names, with or without the version, whatever the port.
func (a *Authority) isSignURL(audience string) bool {
	u, err := url.Parse(audience)
	if err != nil || u.Scheme != "https" || u.Fragment != "" || u.RawQuery != "" || u.User != nil {
		return false
	}
	return (u.Path == "/1.0/sign" || u.Path == "/sign") && slices.Contains(a.names, strings.ToLower(u.Hostname()))
}
