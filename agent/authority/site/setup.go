package site

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

// schema is the version of the ledger's records that this program writes.
const schema = 1

// load reads the authority's own records, or makes them: site, root,
// intermediate, the key of the one-time tokens and the first signing key, all
// in one commit, so that a power cut leaves either none or a whole authority.
func (a *Authority) load(ctx context.Context) error {
	var site siteRecord
	err := a.view(func(t *tx) (err error) {
		site, err = load[siteRecord](t, bucketSite, "authority")
		return err
	})
	if errors.Is(err, errAbsent) {
		site, err = a.create(ctx)
	}
	if err != nil {
		return err
	}
	if site.Schema > schema {
		return fmt.Errorf("schema %d is newer than %d: this program is too old for this database", site.Schema, schema)
	}
	a.tenant, a.created = site.TenantID, site.Created
	if err := a.view(a.read); err != nil {
		return err
	}
	_, err = a.issuingCertificate(ctx)
	return err
}

func (a *Authority) create(ctx context.Context) (siteRecord, error) {
	now := a.now()
	if now.Before(a.opts.Built) {
		return siteRecord{}, fmt.Errorf("the clock says %s, which is before this program was built: set it, a new root would live for 10 years from then", now.UTC().Format(time.RFC3339))
	}
	s := siteRecord{Schema: schema, TenantID: newGUID(), Created: now.UTC()}
	root, err := makeRoot(s.TenantID, now)
	if err != nil {
		return s, fmt.Errorf("make root: %w", err)
	}
	intermediate, err := makeIntermediate(s.TenantID, root, now)
	if err != nil {
		return s, fmt.Errorf("make intermediate: %w", err)
	}
	onboard, err := newECKey()
	if err != nil {
		return s, fmt.Errorf("make claim key: %w", err)
	}
	signing, err := a.makeSigningKey(now, now)
	if err != nil {
		return s, err
	}
	return s, a.update(ctx, func(t *tx) error {
		for name, i := range map[string]issuer{"root": root, "intermediate/0001": intermediate, "onboard": {key: onboard}} {
			r, err := i.record(now.UTC())
			if err != nil {
				return err
			}
			if err := save(t, bucketIssuer, name, r); err != nil {
				return err
			}
		}
		if err := save(t, bucketSigning, signing.kid, signing.record); err != nil {
			return err
		}
		t.note(Entry{Action: "authority-created", Principal: "authority", Scope: "/subscriptions/" + s.TenantID, Serial: root.certificate.SerialNumber.String()})
		return save(t, bucketSite, "authority", s)
	})
}

// read loads the keys into memory.
func (a *Authority) read(t *tx) error {
	err := each(t, bucketIssuer, func(name string, r issuerRecord) error {
		i, err := r.open()
		if err != nil {
			return fmt.Errorf("issuer %s: %w", name, err)
		}
		switch {
		case name == "root":
			a.root = i
		case name == "onboard":
			a.claims = i
		case strings.HasPrefix(name, "intermediate/"):
			a.intermediate = append(a.intermediate, i) // in the order of keys, so the newest is last
		}
		return nil
	})
	if err != nil {
		return err
	}
	if a.root.certificate == nil || a.claims.key == nil || len(a.intermediate) == 0 {
		return errors.New("the database holds no whole authority")
	}
	if a.kid, err = keyThumbprint(a.claims.key.Public()); err != nil {
		return err
	}
	if a.signing, err = t.readSigner(); err != nil {
		return err
	}
	return each(t, bucketReplayUntil, func(_ string, r replayRecord) error {
		a.replays[r.ClientID]++
		return nil
	})
}

// issuingCertificate returns the intermediate that signs, and makes the next
// one when less than a year of it is left: every leaf must end before it.
func (a *Authority) issuingCertificate(ctx context.Context) (issuer, error) {
	a.mu.Lock()
	newest, count := a.intermediate[len(a.intermediate)-1], len(a.intermediate)
	a.mu.Unlock()
	now := a.now()
	const early = 365 * 24 * time.Hour
	if newest.certificate.NotAfter.Sub(now) > early || newest.certificate.NotAfter.Equal(a.root.certificate.NotAfter) {
		return newest, nil
	}
	next, err := makeIntermediate(a.tenant, a.root, now)
	if err != nil {
		return issuer{}, fmt.Errorf("make intermediate: %w", err)
	}
	r, err := next.record(now.UTC())
	if err != nil {
		return issuer{}, err
	}
	err = a.update(ctx, func(t *tx) error {
		key := fmt.Sprintf("intermediate/%04d", count+1)
		switch _, err := load[issuerRecord](t, bucketIssuer, key); {
		case err == nil:
			return errEnough // somebody else was faster
		case !errors.Is(err, errAbsent):
			return err
		}
		t.note(Entry{Action: "intermediate-made", Principal: "authority", Serial: next.certificate.SerialNumber.String(), Expires: next.certificate.NotAfter})
		t.after = append(t.after, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.intermediate = append(a.intermediate, next)
		})
		return save(t, bucketIssuer, key, r)
	})
	if errors.Is(err, errEnough) {
		return newest, nil
	}
	return next, err
}

// keyThumbprint is the RFC 7638 thumbprint of a P-256 key, which step-ca uses as kid.
func keyThumbprint(pub any) (string, error) {
	x, y, err := coordinates(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// coordinates returns a P-256 key's coordinates as a JWK writes them.
func coordinates(pub any) (x, y string, err error) {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return "", "", fmt.Errorf("%T is no P-256 key", pub)
	}
	point, err := key.ECDH()
	if err != nil {
		return "", "", err
	}
	raw := point.Bytes() // 4, x, y
	if len(raw) != 65 {
		return "", "", fmt.Errorf("%d bytes are no P-256 point", len(raw))
	}
	b64 := base64.RawURLEncoding
	return b64.EncodeToString(raw[1:33]), b64.EncodeToString(raw[33:]), nil
}
