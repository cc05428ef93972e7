package site

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/jws"
)

// Each way in which a credential ends, against each call that takes one. A row
// fails when the branch of holderOf that its end needs is taken out.
func TestEndedCredentialsAreRefusedEverywhere(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	csr := map[string]string{"csr": csrFor(t, newKey(t), "any")}
	for _, tc := range []struct {
		name   string
		user   bool // ends the assigned identity's credential; else the system one's
		end    func(w *world, d, u *device)
		error  string // of the token endpoint
		number int
	}{
		{"certificate revoked by an operator", false, func(w *world, d, _ *device) { w.must(w.a.RevokeCertificate(ctx, d.serial())) }, "invalid_client", 700027},
		{"certificate revoked by itself", false, func(w *world, d, _ *device) { w.rekey(d); w.selfRevoke(d, 4) }, "invalid_client", 700027},
		{"machine revoked", false, func(w *world, _, _ *device) { w.must(w.a.RevokeMachine(ctx, "gw")) }, "invalid_client", 700027},
		{"machine revoked, assigned identity", true, func(w *world, _, _ *device) { w.must(w.a.RevokeMachine(ctx, "gw")) }, "invalid_client", 700027},
		{"machine deleted", false, func(w *world, _, _ *device) { w.must(w.a.DeleteMachine(ctx, "gw")) }, "unauthorized_client", 700016},
		{"machine deleted, assigned identity", true, func(w *world, _, _ *device) { w.must(w.a.DeleteMachine(ctx, "gw")) }, "unauthorized_client", 700016},
		{"machine disconnected", true, func(w *world, d, _ *device) { w.selfRevoke(d, 4) }, "invalid_client", 700027},
		{"identity deleted", true, func(w *world, _, _ *device) { w.must(w.a.DeleteIdentity(ctx, "telemetry", true)) }, "unauthorized_client", 700016},
		{"identity unassigned", true, func(w *world, _, _ *device) { w.must(w.a.Unassign(ctx, "telemetry", "gw")) }, "unauthorized_client", 700016},
		{"unassigned and assigned again", true, func(w *world, _, _ *device) {
			w.must(w.a.Unassign(ctx, "telemetry", "gw"))
			w.must(w.a.Assign(ctx, "telemetry", "gw"))
		}, "invalid_client", 700027},
		{"identity disabled", true, func(w *world, _, _ *device) { w.must(w.a.DisableIdentity(ctx, "telemetry", true)) }, "unauthorized_client", 7000112},
		{"machine's own identity disabled", false, func(w *world, d, _ *device) { w.must(w.a.DisableIdentity(ctx, d.clientID(), true)) }, "unauthorized_client", 7000112},
		{"fetched anew", true, func(w *world, d, _ *device) {
			w.must(w.a.RenewAssignment(ctx, "telemetry", "gw"))
			w.fetch(d, "telemetry")
		}, "invalid_client", 700027},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.addVault()
			d := w.connect("gw")
			_, err := w.a.CreateIdentity(ctx, "telemetry", "")
			w.must(err)
			w.must(w.a.Assign(ctx, "telemetry", "gw"))
			u := w.fetch(d, "telemetry")
			e := d
			if tc.user {
				e = u
			}
			if a := w.tokenFor(e, vault); a.status != 200 {
				t.Fatalf("before: %d %s", a.status, a.body)
			}
			tc.end(w, d, u)
			if !tc.user {
				if a := w.do(e, "GET", "/v1/machines/self/identities", nil, ""); a.status != 401 {
					t.Errorf("list: %d", a.status)
				}
			}
			for path, body := range map[string]any{"/renew": "", "/rekey": csr} {
				if a := w.post(e, path, body); a.status != 401 || a.message() != stepUnauthorized {
					t.Errorf("%s: %d %s", path, a.status, a.body)
				}
			}
			for method, a := range map[string]answer{
				"tls": w.tokenFor(e, vault),
				"jwt": w.token(nil, assertionForm(e, w.assertion(e, jws.ES256, nil), vault)),
			} {
				got := decodeAs[oauthAnswer](t, a)
				if a.status == http.StatusOK || got.Error != tc.error || len(got.Codes) != 1 || got.Codes[0] != tc.number {
					t.Errorf("token by %s: %d %s", method, a.status, a.body)
				}
			}
			if a := w.post(e, "/revoke", map[string]any{"serial": e.serial(), "passive": true}); a.status == 200 {
				t.Errorf("revoke: %d %s", a.status, a.body)
			}
			w.restart()
			if a := w.tokenFor(e, vault); a.status == 200 {
				t.Error("a restart revived it")
			}
		})
	}
}

// oauthAnswer is what the token endpoint says, good or bad.
type oauthAnswer struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Codes       []int  `json:"error_codes"`
	Timestamp   string `json:"timestamp"`
	Trace       string `json:"trace_id"`
	Correlation string `json:"correlation_id"`
	Type        string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	AccessToken string `json:"access_token"`
}

func TestAnExpiredKeyEarnsNothingByAssertion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	w.clock.set(d.leaf().NotAfter.Add(time.Second))
	a := w.token(nil, assertionForm(d, w.assertion(d, jws.ES256, nil), vault))
	got := decodeAs[oauthAnswer](t, a)
	if a.status != 401 || got.Error != "invalid_client" || got.Codes[0] != 700027 {
		t.Errorf("got %d %s", a.status, a.body)
	}
	w.clock.set(d.leaf().NotBefore.Add(-time.Second))
	a = w.token(nil, assertionForm(d, w.assertion(d, jws.ES256, nil), vault))
	if a.status != 401 {
		t.Errorf("before its time: %d %s", a.status, a.body)
	}
}

func TestADisabledIdentityComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	w.must(w.a.DisableIdentity(context.Background(), d.clientID(), true))
	w.must(w.a.DisableIdentity(context.Background(), d.clientID(), false))
	if a := w.tokenFor(d, vault); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// An unassignment between the check and the commit wins.
func TestUnassignmentDuringATokenRequestWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	ctx := context.Background()
	d := w.connect("gw")
	_, err := w.a.CreateIdentity(ctx, "telemetry", "")
	w.must(err)
	w.must(w.a.Assign(ctx, "telemetry", "gw"))
	u := w.fetch(d, "telemetry")
	h, err := w.a.lookUp(u.serial(), nil)
	w.must(err)
	w.must(w.a.Unassign(ctx, "telemetry", "gw"))
	r, err := http.NewRequest(http.MethodPost, testURL, nil)
	w.must(err)
	if _, err := w.a.issueToken(r, client{holder: h, clientID: u.clientID(), method: "tls_client_auth"}, vault); err == nil {
		t.Error("a token was issued")
	}
}

func TestATokenForAnotherClientIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d, other := w.connect("gw"), w.connect("other")
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {other.clientID()}, "resource": {vault}}
	if a := w.token(d, form); a.status != 401 || decodeAs[oauthAnswer](t, a).Error != "invalid_client" {
		t.Errorf("by certificate: %d %s", a.status, a.body)
	}
	form = assertionForm(other, w.assertion(d, jws.ES256, func(_, c map[string]any) { c["iss"], c["sub"] = other.clientID(), other.clientID() }), vault)
	if a := w.token(nil, form); a.status != 401 || decodeAs[oauthAnswer](t, a).Error != "invalid_client" {
		t.Errorf("by assertion: %d %s", a.status, a.body)
	}
}

// Each branch of holderOf alone, on records that were changed by hand: where
// two of them guard the same thing, neither may hide that the other is gone.
func TestEachConditionOfACredentialCounts(t *testing.T) {
	t.Parallel()
	change := func(f func(*tx, holder) error) func(*world, *device) {
		return func(w *world, u *device) {
			w.must(w.a.update(context.Background(), func(t *tx) error {
				h, err := t.holderOf(u.serial())
				if err != nil {
					return err
				}
				return f(t, h)
			}))
		}
	}
	now := start
	for want, f := range map[error]func(*world, *device){
		nil:        func(*world, *device) {},
		errUnknown: change(func(t *tx, h holder) error { return drop(t, bucketCertificate, h.certificate.Serial) }),
		errRevoked: change(func(t *tx, h holder) error {
			h.certificate.Revoked = now
			return save(t, bucketCertificate, h.certificate.Serial, h.certificate)
		}),
		errExpired: func(w *world, u *device) { w.clock.set(u.leaf().NotAfter.Add(time.Second)) },
		errNotYet:  func(w *world, u *device) { w.clock.set(u.leaf().NotBefore.Add(-time.Second)) },
		errUnassigned: change(func(t *tx, h holder) error {
			return drop(t, bucketHolding, holdingKey(h.machine.VMID, h.identity.ClientID))
		}),
		errDisconnected: change(func(t *tx, h holder) error {
			h.machine.Disconnected = now
			return save(t, bucketMachine, h.machine.VMID, h.machine)
		}),
		errDisabled: change(func(t *tx, h holder) error {
			h.identity.Disabled = true
			return save(t, bucketIdentity, h.identity.ClientID, h.identity)
		}),
		errDeleted: change(func(t *tx, h holder) error {
			h.identity.Deleted = now
			return save(t, bucketIdentity, h.identity.ClientID, h.identity)
		}),
	} {
		w, d := plant(t)
		w.assign()
		u := w.fetch(d, "telemetry")
		f(w, u)
		if _, err := w.a.lookUp(u.serial(), u.leaf().Raw); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	for name, drops := range map[string]func(*tx, holder) error{
		"machine":  func(t *tx, h holder) error { return drop(t, bucketMachine, h.machine.VMID) },
		"identity": func(t *tx, h holder) error { return drop(t, bucketIdentity, h.identity.ClientID) },
	} {
		w, d := plant(t)
		change(drops)(w, d)
		if _, err := w.a.lookUp(d.serial(), nil); !errors.Is(err, errDeleted) {
			t.Errorf("without its %s: got %v", name, err)
		}
	}
}

// A certificate that our own intermediate signed outside of the ledger, under
// the serial of one that is in it.
func TestACertificateMustBeTheOneThatWasIssued(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	by, err := w.a.issuingCertificate(context.Background())
	w.must(err)
	key := newKey(t)
	forged := *d.leaf()
	der, err := x509.CreateCertificate(rand.Reader, &forged, by.certificate, key.Public(), by.key)
	w.must(err)
	cert, err := x509.ParseCertificate(der)
	w.must(err)
	e := &device{key, []*x509.Certificate{cert, d.chain[1]}}
	if cert.SerialNumber.Cmp(d.leaf().SerialNumber) != 0 {
		t.Fatal("another serial")
	}
	if a := w.do(e, "POST", "/renew", nil, ""); a.status != 401 {
		t.Errorf("renew: %d", a.status)
	}
	if a := w.tokenFor(e, vault); a.status != 401 {
		t.Errorf("token: %d", a.status)
	}
	if a, _ := w.ask(e, ""); a.status != 401 {
		t.Errorf("list: %d", a.status)
	}
	if a := w.post(e, "/revoke", map[string]any{"serial": e.serial(), "passive": true}); a.status != 401 {
		t.Errorf("revoke: %d", a.status)
	}
}

func TestForeignTextIsNotReflectedToAnEndedCredential(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	w.assign()
	u := w.fetch(d, "telemetry")
	w.must(w.a.Unassign(context.Background(), "telemetry", "gw"))
	evil := "x\r\n\x1b" + strings.Repeat("y", 1000)
	a := w.token(u, url.Values{"grant_type": {"client_credentials"}, "client_id": {evil}, "resource": {vault}})
	got := decodeAs[oauthAnswer](t, a)
	if got.Error != "unauthorized_client" || strings.ContainsAny(got.Description, "\r\n\x1b") || len(got.Description) > 600 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}
