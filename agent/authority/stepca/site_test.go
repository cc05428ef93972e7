package stepca_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/stepca"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

// atSite is the driver with the site authority behind it.
func atSite(t *testing.T, s *authoritytest.Site) *stepca.Authority {
	t.Helper()
	a, err := stepca.New(stepca.Config{URL: s.URL, Clients: s.Clients(), Clock: s.World.Clock})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestConformanceAtTheSiteAuthority(t *testing.T) {
	authoritytest.Authority(t, func(t *testing.T, w *authoritytest.World) authoritytest.AuthorityCase {
		s := authoritytest.StartSite(t, w)
		machines := 0
		return authoritytest.AuthorityCase{
			Authority: atSite(t, s), Roots: s.Roots(), Foreign: claim(t, nil, clientID),
			Claim: func(t *testing.T) store.Secret {
				machines++
				return s.Claim(t, fmt.Sprintf("gw-%04d", machines), false)
			},
			Revoke: func(t *testing.T, leaf *x509.Certificate) {
				if err := s.RevokeCertificate(t.Context(), leaf.SerialNumber.String()); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

func TestConformanceAtTheDouble(t *testing.T) {
	authoritytest.Authority(t, func(t *testing.T, w *authoritytest.World) authoritytest.AuthorityCase {
		d := newDouble(w)
		d.list, d.etag = `{"generation":1,"identities":[{"kind":"SystemAssigned","client_id":"`+clientID+`"}]}`, `"1"`
		foreign := claim(t, nil, clientID)
		d.used[foreign.Reveal()] = true
		return authoritytest.AuthorityCase{
			Authority: d.driver(), Roots: w.PKI.Pool(), Foreign: foreign,
			Claim:  func(t *testing.T) store.Secret { return claim(t, nil, clientID, deviceID) },
			Revoke: func(_ *testing.T, leaf *x509.Certificate) { d.revoked[leaf.SerialNumber.String()] = true },
		}
	})
}

func TestConnectToTheSiteWithAClaimAlone(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		s := authoritytest.StartSite(t, w)
		secret := s.Claim(t, "gw-1", false)
		c, err := stepca.ParseClaim(secret)
		if err != nil {
			t.Fatal(err)
		}
		config := w.Config()
		config.Roots = nil
		root, err := stepca.Root(t.Context(), config, c.URL, c.RootSHA256)
		if err != nil || root != s.RootPEM() {
			t.Fatalf("%v\n%s", err, root)
		}
		block, _ := pem.Decode([]byte(root))
		if cert, err := x509.ParseCertificate(block.Bytes); err != nil || !cert.IsCA {
			t.Error(err)
		}
		if _, err := atSite(t, s).Enroll(t.Context(), authoritytest.NewKey(t), secret); err != nil {
			t.Error(err)
		}
	})
}

// A user-assigned identity: assigned, fetched with its one-time secret,
// renewed, unassigned.
func TestUserAssignedIdentityOfTheSite(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		s := authoritytest.StartSite(t, w)
		a := atSite(t, s)
		key := authoritytest.NewKey(t)
		chain, err := a.Enroll(t.Context(), key, s.Claim(t, "gw-1", false))
		if err != nil {
			t.Fatal(err)
		}
		system := &credential.Credential{Identity: credential.Identity{ClientID: chain[0].Subject.CommonName}, Signer: key, Chain: chain}
		if _, err := s.CreateIdentity(t.Context(), "telemetry", ""); err != nil {
			t.Fatal(err)
		}
		list, err := a.Assignments(t.Context(), system, "")
		if err != nil || len(list.Identities) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		if id := list.Identities[0].Identity; id.TenantID != s.TenantID() || id.Kind != credential.SystemAssigned || id.Name != "gw-1" {
			t.Errorf("%+v", id)
		}
		if err := s.Assign(t.Context(), "telemetry", "gw-1"); err != nil {
			t.Fatal(err)
		}
		list, err = a.Assignments(t.Context(), system, list.ETag)
		if err != nil || len(list.Identities) != 2 || list.Identities[1].Enroll.Empty() {
			t.Fatalf("%+v, %v", list, err)
		}
		own := authoritytest.NewKey(t)
		chain, err = a.Enroll(t.Context(), own, list.Identities[1].Enroll)
		if err != nil || chain[0].Subject.CommonName != list.Identities[1].Identity.ClientID {
			t.Fatal(err)
		}
		user := &credential.Credential{Identity: list.Identities[1].Identity, Signer: own, Chain: chain}
		time.Sleep(time.Hour)
		if _, err := a.Renew(t.Context(), user, authoritytest.NewKey(t)); err != nil {
			t.Error(err)
		}
		if _, err := a.Assignments(t.Context(), user, ""); lifecycle.ClassOf(err) != lifecycle.ClassRejected && lifecycle.ClassOf(err) != lifecycle.ClassDenied {
			t.Errorf("the list for a user-assigned identity: %v", err)
		}
		if err := s.Unassign(t.Context(), "telemetry", "gw-1"); err != nil {
			t.Fatal(err)
		}
		_, err = a.Renew(t.Context(), user, authoritytest.NewKey(t))
		authoritytest.WantError(t, err, lifecycle.ClassRejected, "")
		if _, err := a.Renew(t.Context(), system, authoritytest.NewKey(t)); err != nil {
			t.Errorf("the machine's own: %v", err)
		}
	})
}

// Over at the site: the clock decides between Clock and Rejected, and a
// re-onboarding claim brings the machine back.
func TestExpiredAtTheSite(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		s := authoritytest.StartSite(t, w)
		a := atSite(t, s)
		key := authoritytest.NewKey(t)
		chain, err := a.Enroll(t.Context(), key, s.Claim(t, "gw-1", false))
		if err != nil {
			t.Fatal(err)
		}
		old := &credential.Credential{Signer: key, Chain: chain}
		time.Sleep(91 * 24 * time.Hour)
		_, err = a.Renew(t.Context(), old, authoritytest.NewKey(t))
		authoritytest.WantError(t, err, lifecycle.ClassRejected, "expired certificate")
		w.Time.Step(-10 * 24 * time.Hour) // our clock says that it is still good
		_, err = a.Renew(t.Context(), old, authoritytest.NewKey(t))
		authoritytest.WantError(t, err, lifecycle.ClassClock, "expired certificate")
		w.Time.Step(10 * 24 * time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		chain, err = a.Enroll(ctx, authoritytest.NewKey(t), s.Claim(t, "gw-1", true))
		if err != nil || chain[0].Subject.CommonName != old.Leaf().Subject.CommonName {
			t.Errorf("reconnect: %v", err)
		}
	})
}
