package stepca_test

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/authority/stepca"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

const (
	clientID = "11111111-2222-3333-4444-555555555555"
	deviceID = "urn:device:gw-1"
)

// enrolled is a device that the double knows.
func enrolled(t *testing.T, d *double) *credential.Credential {
	t.Helper()
	key := authoritytest.NewKey(t)
	chain, err := d.driver().Enroll(t.Context(), key, claim(t, nil, clientID, deviceID))
	if err != nil {
		t.Fatal(err)
	}
	return &credential.Credential{Identity: credential.Identity{ClientID: clientID}, Signer: key, Chain: chain}
}

func TestEnrollAsksForExactlyTheNamesOfTheClaim(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		names := []string{clientID, "urn:postern:identity:o-1", "urn:postern:machine:v-1"}
		key := authoritytest.NewKey(t)
		once := claim(t, nil, names...)
		chain, err := d.driver().Enroll(t.Context(), key, store.NewSecret(" "+once.Reveal()+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		leaf := chain[0]
		if len(chain) != 2 || leaf.Subject.CommonName != clientID || len(leaf.URIs) != 2 || !key.PublicKey.Equal(leaf.PublicKey) {
			t.Errorf("got %d certificates, %v, %v", len(chain), leaf.Subject, leaf.URIs)
		}
		_, err = d.driver().Enroll(t.Context(), authoritytest.NewKey(t), once)
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "used before")
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "stepca: sign: The request lacked necessary authorization")
	})
}

func TestNamesKeepTheirKindInTheRequest(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		names := []string{"device-1", "10.0.0.1", "fe80::1", "a@b.test", "urn:device:device-1", "https://x.test/y"}
		var seen *x509.CertificateRequest
		d.answer = func(rw http.ResponseWriter, r *http.Request) bool {
			seen, _ = d.request(rw, r)
			refuse(rw, http.StatusTeapot, "enough")
			return true
		}
		_, err := d.driver().Enroll(t.Context(), authoritytest.NewKey(t), claim(t, nil, names...))
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "enough")
		if seen == nil || len(seen.DNSNames) != 1 || len(seen.IPAddresses) != 2 || len(seen.EmailAddresses) != 1 || len(seen.URIs) != 2 || seen.Subject.CommonName != "device-1" {
			t.Errorf("got %+v", seen)
		}
	})
}

func TestID5RenewIsARekeyWithThePendingKeyEachTime(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		current := enrolled(t, d)
		time.Sleep(time.Hour) // of the bubble
		pending := authoritytest.NewKey(t)
		var first *x509.Certificate
		for range 2 { // ID5: the answer was lost, the same key is sent again
			chain, err := d.driver().Renew(t.Context(), current, pending)
			if err != nil {
				t.Fatal(err)
			}
			leaf := chain[0]
			if !pending.PublicKey.Equal(leaf.PublicKey) || !leaf.NotAfter.After(current.Leaf().NotAfter) || leaf.Subject.CommonName != clientID || leaf.URIs[0].String() != deviceID {
				t.Errorf("got %v %v %v", leaf.Subject, leaf.URIs, leaf.NotAfter)
			}
			if first != nil && first.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
				t.Error("the same certificate twice")
			}
			first = leaf
		}
		if last := d.calls[len(d.calls)-1]; last != "POST /1.0/rekey" {
			t.Errorf("called %s", last)
		}
	})
}

func TestRenewWithTheSameKeyIsAPlainRenewal(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		current := enrolled(t, d)
		chain, err := d.driver().Renew(t.Context(), current, current.Signer)
		if err != nil || chain[0].SerialNumber.Cmp(current.Leaf().SerialNumber) == 0 {
			t.Fatalf("got %v", err)
		}
		if last := d.calls[len(d.calls)-1]; last != "POST /1.0/renew" {
			t.Errorf("called %s", last)
		}
	})
}

func TestRetireRevokesTheOldCertificateByItself(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		a, old := d.driver(), enrolled(t, d)
		pending := authoritytest.NewKey(t)
		chain, err := a.Renew(t.Context(), old, pending)
		if err != nil {
			t.Fatal(err)
		}
		current := &credential.Credential{Identity: old.Identity, Signer: pending, Chain: chain}
		for range 2 { // the second time it is done already
			if err := a.Retire(t.Context(), old); err != nil {
				t.Error(err)
			}
		}
		if !d.revoked[old.Leaf().SerialNumber.String()] || len(d.revoked) != 1 {
			t.Errorf("revoked %v", d.revoked)
		}
		_, err = a.Renew(t.Context(), old, pending)
		authoritytest.WantError(t, err, lifecycle.ClassRejected, "lacked necessary authorization")
		if _, err := a.Renew(t.Context(), current, authoritytest.NewKey(t)); err != nil {
			t.Errorf("the certificate in use: %v", err)
		}
	})
}

func TestRetireOfWhatIsOverIsDone(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		message string
		class   lifecycle.Class // 0: done
	}{
		"revoked already": {400, "certificate with serial number '1' is already revoked", 0},
		"expired":         {401, "certificate expired on 2000", 0},
		"refused":         {401, unauthorized, 0},
		"bad request":     {400, "bad revocation", lifecycle.ClassDenied},
		"forbidden":       {403, "no", lifecycle.ClassDenied},
		"no database":     {501, "The requested method is not implemented", lifecycle.ClassTransient},
		"busy":            {429, "slow down", lifecycle.ClassTransient},
	} {
		t.Run(name, func(t *testing.T) {
			authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
				d := newDouble(w)
				old := enrolled(t, d)
				d.canned(c.status, nil, `{"status":1,"message":"`+c.message+`"}`)
				err := d.driver().Retire(t.Context(), old)
				if c.class == 0 && err != nil || c.class != 0 && lifecycle.ClassOf(err) != c.class {
					t.Errorf("got %v, want class %v", err, c.class)
				}
			})
		})
	}
}

func TestUP3BadServersGetNoClaimAndNoCertificate(t *testing.T) {
	good := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, `{"status":"ok"}`) })
	driver := func(trial authoritytest.Trial) (*stepca.Authority, func(), error) {
		clients := authority.NewClients(trial.Config)
		a, err := stepca.New(stepca.Config{URL: trial.URL, Clients: clients, Clock: trial.Config.Clock})
		return a, clients.CloseIdleConnections, err
	}
	t.Run("revoke", func(t *testing.T) {
		authoritytest.BadServers(t, good, func(ctx context.Context, trial authoritytest.Trial) error {
			a, done, err := driver(trial)
			if err != nil {
				return err
			}
			defer done()
			return a.Retire(ctx, trial.Credential)
		})
	})
	t.Run("sign", func(t *testing.T) {
		authoritytest.BadServers(t, good, func(ctx context.Context, trial authoritytest.Trial) error {
			a, done, err := driver(trial)
			if err != nil {
				return err
			}
			defer done()
			_, err = a.Enroll(ctx, trial.Credential.Signer, claim(t, nil, trial.Credential.Identity.ClientID))
			if err != nil && strings.Contains(err.Error(), "no certificate") {
				return nil // the good server signs nothing, but it was asked
			}
			return err
		})
	})
}

func TestURLMustBeAnAuthoritys(t *testing.T) {
	for _, bad := range []string{"", "ca.test", "http://ca.test", "https://", "https://u:p@ca.test", "https://ca.test?x=1", "https://ca.test#f", "https://a b"} {
		if _, err := stepca.New(stepca.Config{URL: bad}); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"https://ca.test", "https://ca.test:8443/", "https://[::1]:9000/ca"} {
		if _, err := stepca.New(stepca.Config{URL: good}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestHeartbeatShowsNoCertificate(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		d.answer = func(_ http.ResponseWriter, r *http.Request) bool {
			if len(r.TLS.PeerCertificates) > 0 || r.Method != http.MethodGet || r.ContentLength > 0 {
				t.Errorf("asked %s with %d certificates", r.Method, len(r.TLS.PeerCertificates))
			}
			return false
		}
		if err := d.driver().Heartbeat(t.Context()); err != nil {
			t.Error(err)
		}
		d.answer = func(rw http.ResponseWriter, _ *http.Request) bool {
			refuse(rw, http.StatusInternalServerError, "database is gone")
			return true
		}
		authoritytest.WantError(t, d.driver().Heartbeat(t.Context()), lifecycle.ClassTransient, "database is gone")
	})
}
