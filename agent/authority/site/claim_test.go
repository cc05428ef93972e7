package site

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAClaimCarriesAllThatADeviceNeeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, err := w.a.CreateClaim(context.Background(), ClaimRequest{Machine: "gw-0042", Group: "plant-7"})
	w.must(err)
	if fmt.Sprint(c) == c.Token.Reveal() || strings.Contains(fmt.Sprintf("%+v", c), c.Token.Reveal()) {
		t.Error("the token prints")
	}
	got := claimsOf(t, c.Token.Reveal())
	if got.Issuer != "onboard" || len(got.Audience) != 1 || got.Audience[0] != testURL+"/1.0/sign" || got.SHA != w.a.RootSHA256() ||
		!validGUID(got.Subject) || len(got.SANs) != 2 || got.ID == "" || !got.Expires.Equal(start.Add(24*time.Hour)) {
		t.Errorf("got %+v", got)
	}
	if !c.Expires.Equal(start.Add(24 * time.Hour)) {
		t.Errorf("expires %v", c.Expires)
	}
}

func TestClaimsAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connect("taken")
	many := map[string]string{}
	for i := range 51 {
		many[fmt.Sprint(i)] = ""
	}
	for _, tc := range []struct {
		req  ClaimRequest
		want error
	}{
		{ClaimRequest{Machine: ""}, ErrInvalid},
		{ClaimRequest{Machine: "-a"}, ErrInvalid},
		{ClaimRequest{Machine: "a/b"}, ErrInvalid},
		{ClaimRequest{Machine: "a b"}, ErrInvalid},
		{ClaimRequest{Machine: strings.Repeat("a", 65)}, ErrInvalid},
		{ClaimRequest{Machine: strings.Repeat("a", 64)}, nil},
		{ClaimRequest{Machine: "a", Group: "x y"}, ErrInvalid},
		{ClaimRequest{Machine: "a", Tags: many}, ErrInvalid},
		{ClaimRequest{Machine: "a", Life: -1}, ErrInvalid},
		{ClaimRequest{Machine: "a", Life: 31 * 24 * time.Hour}, ErrInvalid},
		{ClaimRequest{Machine: "a", Life: 30 * 24 * time.Hour}, nil},
		{ClaimRequest{Machine: "TAKEN"}, ErrExists},
		{ClaimRequest{Machine: "TAKEN", Reonboard: true}, nil},
		{ClaimRequest{Machine: "free", Reonboard: true}, ErrNotFound},
	} {
		if _, err := w.a.CreateClaim(context.Background(), tc.req); !errors.Is(err, tc.want) {
			t.Errorf("%+v: got %v, want %v", tc.req, err, tc.want)
		}
	}
}

func TestClaimsThatAreOutAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.a.update(context.Background(), func(t *tx) error {
		for i := range maxClaims - 1 {
			jti := fmt.Sprintf("%032d", i)
			if err := save(t, bucketClaim, jti, claimRecord{JTI: jti, Kind: claimOnboard, Expires: start.Add(time.Hour)}); err != nil {
				return err
			}
		}
		return nil
	}))
	w.claim(ClaimRequest{Machine: "last"})
	if _, err := w.a.CreateClaim(context.Background(), ClaimRequest{Machine: "more"}); !errors.Is(err, ErrTooMany) {
		t.Fatalf("got %v", err)
	}
	w.clock.add(time.Hour + time.Second)
	w.claim(ClaimRequest{Machine: "more"})
	w.clock.add(31 * 24 * time.Hour)
	w.claim(ClaimRequest{Machine: "later"}) // sweeps
	n := 0
	w.must(w.a.view(func(t *tx) error { return each(t, bucketClaim, func(string, claimRecord) error { n++; return nil }) }))
	if n > 2 {
		t.Errorf("%d claims are kept", n)
	}
}

func TestAnUnusedClaimMakesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.claim(ClaimRequest{Machine: "gw", Life: time.Hour})
	for _, body := range []map[string]any{
		{"csr": csrFor(t, newKey(t), "other"), "ott": token},
		{"csr": csrFor(t, newKey(t), ""), "ott": token, "notAfter": "9000h"},
	} {
		if a := w.post(nil, "/1.0/sign", body); a.status != 403 {
			t.Fatalf("got %d", a.status)
		}
	}
	w.clock.add(time.Hour + time.Minute + time.Second)
	if a := w.post(nil, "/1.0/sign", signBody(t, newKey(t), token)); a.status != 401 {
		t.Errorf("after its hour: %d %s", a.status, a.body)
	}
	i, err := w.a.Info(context.Background())
	w.must(err)
	if i.Machines != 0 || i.Identities != 0 || i.Deleted != 0 {
		t.Errorf("got %+v", i)
	}
}

func TestARefusedRequestDoesNotSpendTheClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.claim(ClaimRequest{Machine: "gw"})
	if a := w.post(nil, "/1.0/sign", map[string]any{"csr": csrFor(t, newKey(t), "other"), "ott": token}); a.status != 403 {
		t.Fatalf("got %d", a.status)
	}
	w.sign(token)
	if a := w.post(nil, "/1.0/sign", signBody(t, newKey(t), token)); a.status != 401 {
		t.Errorf("second use: %d", a.status)
	}
}

func TestAClockThatJumpsCannotReviveAClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.claim(ClaimRequest{Machine: "gw"})
	w.sign(token)
	w.clock.set(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
	w.claim(ClaimRequest{Machine: "other"}) // sweeps what is over
	w.clock.set(start)
	w.must(w.a.DeleteMachine(context.Background(), "gw"))
	if a := w.post(nil, "/1.0/sign", signBody(t, newKey(t), token)); a.status != 401 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestAClaimOfAnotherSiteIsWorthNothing(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	if a := w.post(nil, "/1.0/sign", signBody(t, newKey(t), other.claim(ClaimRequest{Machine: "gw"}))); a.status != 401 {
		t.Errorf("got %d", a.status)
	}
}

func TestALiveNameNeedsAReonboardToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.claim(ClaimRequest{Machine: "gw-0042"}), w.claim(ClaimRequest{Machine: "GW-0042"})
	d := w.sign(first)
	a := w.post(nil, "/1.0/sign", signBody(t, newKey(t), second))
	if want := stepForbidden + `machine "GW-0042" exists; needs a re-onboard token.`; a.status != 403 || a.message() != want {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := w.do(d, "POST", "/renew", nil, ""); a.status != 201 {
		t.Errorf("the first one suffered: %d", a.status)
	}
}

func TestReonboardKeepsTheIdentityAndRevokesTheOldCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	e := w.rekey(d)
	n := w.sign(w.claim(ClaimRequest{Machine: "gw", Reonboard: true}))
	if n.clientID() != d.clientID() || fmt.Sprint(n.leaf().URIs) != fmt.Sprint(d.leaf().URIs) {
		t.Errorf("identity changed: %v %v", n.clientID(), n.leaf().URIs)
	}
	for _, old := range []*device{d, e} {
		if a := w.do(old, "POST", "/renew", nil, ""); a.status != 401 {
			t.Errorf("an old certificate renews: %d", a.status)
		}
		if a := w.tokenFor(old, vault); a.status != 401 {
			t.Errorf("an old certificate earns tokens: %d", a.status)
		}
	}
	if a := w.tokenFor(n, vault); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestAReonboardClaimDiesWithItsMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connect("gw")
	token := w.claim(ClaimRequest{Machine: "gw", Reonboard: true})
	w.must(w.a.DeleteMachine(context.Background(), "gw"))
	w.connect("gw")
	if a := w.post(nil, "/sign", signBody(t, newKey(t), token)); a.status != 401 {
		t.Errorf("got %d", a.status)
	}
}

// selfRevoke withdraws d's own certificate.
func (w *world) selfRevoke(d *device, code int) {
	w.t.Helper()
	a := w.post(d, "/1.0/revoke", map[string]any{"serial": d.serial(), "reasonCode": code, "passive": true})
	if a.status != http.StatusOK {
		w.t.Fatalf("revoke: %d %s", a.status, a.body)
	}
}

func TestDisconnectAndConnectGivesANewIdentity(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *world, d *device){
		"by its last certificate": func(w *world, d *device) {
			n := w.rekey(d)
			w.selfRevoke(d, 4)
			w.selfRevoke(n, 4)
		},
		"by ceasing to operate": func(w *world, d *device) { w.rekey(d); w.selfRevoke(d, cessationOfOperation) },
		"by an operator":        func(w *world, _ *device) { w.must(w.a.DeleteMachine(context.Background(), "gw")) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ctx := context.Background()
			d := w.connect("gw")
			_, err := w.a.CreateIdentity(ctx, "telemetry", "")
			w.must(err)
			w.must(w.a.Assign(ctx, "telemetry", "gw"))
			u := w.fetch(d, "telemetry")
			before, err := w.a.MachineByName(ctx, "gw")
			w.must(err)
			end(w, d)
			if a := w.do(u, "POST", "/renew", nil, ""); a.status != 401 {
				t.Errorf("the assigned identity works on: %d", a.status)
			}
			n := w.connect("gw")
			after, err := w.a.MachineByName(ctx, "gw")
			w.must(err)
			if after.VMID == before.VMID || after.ClientID == before.ClientID || after.ObjectID == before.ObjectID || n.clientID() != after.ClientID {
				t.Errorf("ids were given out again: %+v %+v", before, after)
			}
			if len(after.Identities) != 0 {
				t.Errorf("assignments were inherited: %v", after.Identities)
			}
			i, err := w.a.Info(ctx)
			w.must(err)
			if i.Machines != 1 || i.Identities != 2 || i.Deleted != 1 {
				t.Errorf("got %+v", i)
			}
		})
	}
}

func TestADisconnectedMachineStaysOnRecordUntilItIsConnectedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	w.clock.add(time.Hour)
	w.selfRevoke(d, 4)
	m, err := w.a.MachineByName(context.Background(), "gw")
	w.must(err)
	if !m.Disconnected.Equal(start.Add(time.Hour)) {
		t.Errorf("got %+v", m)
	}
	back := w.sign(w.claim(ClaimRequest{Machine: "gw", Reonboard: true}))
	m, err = w.a.MachineByName(context.Background(), "gw")
	w.must(err)
	if back.clientID() != d.clientID() || !m.Disconnected.IsZero() {
		t.Errorf("re-onboarded: %+v", m)
	}
}

func TestRetiringAnOldCertificateDisconnectsNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	lost := w.rekey(d) // its answer never arrived
	w.clock.add(time.Minute)
	n := w.rekey(d)
	w.clock.add(time.Minute)
	w.selfRevoke(d, 4)
	m, err := w.a.MachineByName(context.Background(), "gw")
	w.must(err)
	if !m.Disconnected.IsZero() {
		t.Fatal("disconnected")
	}
	if a := w.do(n, "POST", "/renew", nil, ""); a.status != 201 {
		t.Errorf("got %d", a.status)
	}
	w.selfRevoke(n, 4)
	if a := w.do(lost, "POST", "/renew", nil, ""); a.status != 401 {
		t.Errorf("a certificate that nobody holds still works: %d", a.status)
	}
}

func TestRevokingANewCertificateLeavesAnOlderOneThatIsInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	w.clock.add(time.Minute)
	n := w.rekey(d) // d is in use
	w.selfRevoke(n, 4)
	if a := w.do(d, "POST", "/renew", nil, ""); a.status != 201 {
		t.Errorf("got %d", a.status)
	}
}
