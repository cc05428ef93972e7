package site

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// plant is a machine with an identity that may be assigned to it.
func plant(t *testing.T) (*world, *device) {
	t.Helper()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	_, err := w.a.CreateIdentity(context.Background(), "telemetry", "plant-7")
	w.must(err)
	return w, d
}

func (w *world) assign() {
	w.t.Helper()
	w.must(w.a.Assign(context.Background(), "telemetry", "gw"))
}

// ask asks for the list as a machine that has applied the given etag.
func (w *world) ask(d *device, etag string) (answer, assignmentList) {
	w.t.Helper()
	h := http.Header{}
	if etag != "" {
		h.Set("If-None-Match", etag)
	}
	a := w.do(d, http.MethodGet, "/v1/machines/self/identities", h, "")
	if a.status == http.StatusOK {
		return a, decodeAs[assignmentList](w.t, a)
	}
	return a, assignmentList{}
}

func TestTheListNamesTheIdentitiesOfTheMachine(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	a, l := w.ask(d, "")
	m, err := w.a.MachineByName(context.Background(), "gw")
	w.must(err)
	want := assignmentItem{
		Kind: "SystemAssigned", Name: "gw", ClientID: m.ClientID, ObjectID: m.ObjectID, TenantID: w.a.tenant,
		ResourceID: "/subscriptions/" + w.a.tenant + "/resourceGroups/default/providers/Microsoft.HybridCompute/machines/gw",
	}
	if len(l.Identities) != 1 || l.Identities[0] != want || l.Generation == 0 || a.header.Get("ETag") != `"`+strconv.FormatUint(l.Generation, 10)+`"` {
		t.Fatalf("got %s, etag %s", a.body, a.header.Get("ETag"))
	}
	w.assign()
	_, after := w.ask(d, "")
	if after.Generation <= l.Generation || len(after.Identities) != 2 {
		t.Fatalf("got %+v", after)
	}
	u := after.Identities[1]
	if u.Kind != "UserAssigned" || u.Name != "telemetry" || u.Enroll == nil || u.Enroll.Expires != strconv.FormatInt(start.Add(10*time.Minute).Unix(), 10) ||
		u.ResourceID != "/subscriptions/"+w.a.tenant+"/resourceGroups/plant-7/providers/Microsoft.ManagedIdentity/userAssignedIdentities/telemetry" {
		t.Errorf("got %+v", u)
	}
	c := claimsOf(t, u.Enroll.OTT)
	if c.Subject != u.ClientID || fmt.Sprint(c.SANs) != fmt.Sprint(sansFor(u.ObjectID, m.VMID)) {
		t.Errorf("one-time token for %v %v", c.Subject, c.SANs)
	}
}

func TestAnUnchangedListIsNotSentAgain(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	w.assign()
	a, _ := w.ask(d, "")
	tag := a.header.Get("ETag")
	if a, l := w.ask(d, tag); a.status != 200 || l.Identities[1].Enroll == nil {
		t.Error("304 although something is to be fetched")
	}
	w.fetch(d, "telemetry")
	for _, header := range []string{tag, "W/" + tag} {
		a, _ := w.ask(d, header)
		if a.status != http.StatusNotModified || len(a.body) != 0 || a.header.Get("ETag") != tag || a.header.Get("Date") == "" {
			t.Errorf("%s: got %d %q", header, a.status, a.body)
		}
	}
	for _, header := range []string{`"999"`, `41`, `"x"`, "*", `"`, strings.Trim(tag, `"`)} {
		if a, _ := w.ask(d, header); a.status != http.StatusOK {
			t.Errorf("%s: got %d", header, a.status)
		}
	}
	w.must(w.a.Unassign(context.Background(), "telemetry", "gw"))
	if a, l := w.ask(d, tag); a.status != 200 || len(l.Identities) != 1 {
		t.Errorf("after unassign: %d %+v", a.status, l)
	}
}

func TestOnlyTheMachinesOwnIdentityMayAsk(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	w.assign()
	u := w.fetch(d, "telemetry")
	if a, _ := w.ask(u, ""); a.status != http.StatusForbidden {
		t.Errorf("assigned identity: %d", a.status)
	}
	if a, _ := w.ask(nil, ""); a.status != http.StatusUnauthorized {
		t.Errorf("nobody: %d", a.status)
	}
}

func TestOneEnrolmentIsOutAtATimeAndCanBeUsedOnce(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	w.assign()
	ott := func() string { t.Helper(); return w.list(d).Identities[1].Enroll.OTT }
	first := ott()
	w.clock.add(time.Minute)
	if again := ott(); claimsOf(t, again).ID != claimsOf(t, first).ID {
		t.Error("a second token is out")
	}
	w.clock.add(5 * time.Minute)
	second := ott()
	if claimsOf(t, second).ID == claimsOf(t, first).ID {
		t.Error("a token that is nearly over was handed out again")
	}
	if a := w.post(nil, "/sign", signBody(t, newKey(t), first)); a.status != 401 {
		t.Errorf("the replaced one: %d", a.status)
	}
	w.sign(second)
	if a := w.post(nil, "/sign", signBody(t, newKey(t), second)); a.status != 401 {
		t.Errorf("second use: %d", a.status)
	}
}

func TestAnEnrolmentDiesWithItsAssignment(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, end := range map[string]func(w *world, d *device){
		"unassigned":            func(w *world, _ *device) { w.must(w.a.Unassign(ctx, "telemetry", "gw")) },
		"assigned again":        func(w *world, _ *device) { w.must(w.a.Unassign(ctx, "telemetry", "gw")); w.assign() },
		"identity deleted":      func(w *world, _ *device) { w.must(w.a.DeleteIdentity(ctx, "telemetry", true)) },
		"identity disabled":     func(w *world, _ *device) { w.must(w.a.DisableIdentity(ctx, "telemetry", true)) },
		"machine deleted":       func(w *world, _ *device) { w.must(w.a.DeleteMachine(ctx, "gw")) },
		"machine revoked":       func(w *world, _ *device) { w.must(w.a.RevokeMachine(ctx, "gw")) },
		"machine disconnected":  func(w *world, d *device) { w.selfRevoke(d, 4) },
		"eleven minutes passed": func(w *world, _ *device) { w.clock.add(11*time.Minute + time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			w, d := plant(t)
			w.assign()
			ott := w.list(d).Identities[1].Enroll.OTT
			end(w, d)
			if a := w.post(nil, "/sign", signBody(t, newKey(t), ott)); a.status != 401 {
				t.Errorf("got %d %s", a.status, a.body)
			}
		})
	}
}

func TestALostAnswerIsHealed(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	a, _ := w.ask(d, "")
	tag := a.header.Get("ETag")
	w.assign()
	lost := w.fetch(d, "telemetry") // the device never hears of it
	a, l := w.ask(d, tag)
	if a.status != 200 || l.Identities[1].Enroll == nil {
		t.Fatalf("nothing to fetch: %d %s", a.status, a.body)
	}
	u := w.sign(l.Identities[1].Enroll.OTT)
	if a := w.do(lost, "POST", "/renew", nil, ""); a.status != 401 {
		t.Errorf("two certificates are valid: %d", a.status)
	}
	if a := w.tokenFor(u, vault); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestWordOfArrivalEndsTheOffer(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	w.assign()
	a, _ := w.ask(d, "")
	w.fetch(d, "telemetry")
	if a, _ := w.ask(d, a.header.Get("ETag")); a.status != http.StatusNotModified {
		t.Fatalf("got %d", a.status)
	}
	// The machine restarts and has forgotten the tag; the identity was not used yet.
	if _, l := w.ask(d, ""); l.Identities[1].Enroll != nil {
		t.Error("offered again although it had arrived")
	}
}

func TestALapsedAssignmentIsLeftToTheOperator(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	w.assign()
	u := w.fetch(d, "telemetry")
	w.tokenFor(u, vault)
	w.clock.add(50 * 24 * time.Hour)
	n := w.rekey(d)
	w.clock.set(u.leaf().NotAfter.Add(time.Second))
	if l := w.list(n); l.Identities[1].Enroll != nil {
		t.Error("offered by itself")
	}
	w.must(w.a.RenewAssignment(context.Background(), "telemetry", "gw"))
	back := w.fetch(n, "telemetry")
	if back.clientID() != u.clientID() {
		t.Errorf("another identity: %s", back.clientID())
	}
	if a := w.tokenFor(back, vault); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestReonboardingRestoresTheAssignmentsThatLapsed(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	w.assign()
	u := w.fetch(d, "telemetry")
	w.clock.add(91 * 24 * time.Hour)
	n := w.sign(w.claim(ClaimRequest{Machine: "gw", Reonboard: true}))
	back := w.fetch(n, "telemetry")
	if back.clientID() != u.clientID() || w.tokenFor(back, vault).status != 200 {
		t.Error("another identity, or it does not work")
	}
	// One that is valid is left alone.
	n = w.sign(w.claim(ClaimRequest{Machine: "gw", Reonboard: true}))
	if l := w.list(n); l.Identities[1].Enroll != nil {
		t.Error("a valid one is to be fetched again")
	}
	m, err := w.a.MachineByName(context.Background(), "gw")
	w.must(err)
	live := 0
	for _, c := range m.Certificates {
		if c.ClientID == u.clientID() && c.Revoked.IsZero() && c.NotAfter.After(w.clock.Now()) {
			live++
		}
	}
	if live != 1 {
		t.Errorf("%d valid certificates of the assigned identity", live)
	}
}

func TestASharedIdentityIsRevokedOnOneMachineAlone(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	ctx := context.Background()
	e := w.connect("gw-2")
	w.assign()
	w.must(w.a.Assign(ctx, "telemetry", "gw-2"))
	u, v := w.fetch(d, "telemetry"), w.fetch(e, "telemetry")
	if u.clientID() != v.clientID() || fmt.Sprint(u.leaf().URIs) == fmt.Sprint(v.leaf().URIs) {
		t.Fatalf("names %v %v", u.leaf().URIs, v.leaf().URIs)
	}
	w.must(w.a.Unassign(ctx, "telemetry", "gw"))
	if a := w.tokenFor(u, vault); a.status == 200 {
		t.Error("the unassigned copy works on")
	}
	if a := w.tokenFor(v, vault); a.status != 200 {
		t.Errorf("the other copy suffered: %d %s", a.status, a.body)
	}
}

func TestIdentitiesAreAdministered(t *testing.T) {
	t.Parallel()
	w, d := plant(t)
	ctx := context.Background()
	before, err := w.a.Identities(ctx)
	w.must(err)
	id := before[1]
	for _, tc := range []struct {
		name string
		do   func() error
		want error
	}{
		{"same name", func() error { _, err := w.a.CreateIdentity(ctx, "TELEMETRY", ""); return err }, ErrExists},
		{"bad name", func() error { _, err := w.a.CreateIdentity(ctx, "a b", ""); return err }, ErrInvalid},
		{"bad group", func() error { _, err := w.a.CreateIdentity(ctx, "b", "a b"); return err }, ErrInvalid},
		{"assign to nobody", func() error { return w.a.Assign(ctx, "telemetry", "nobody") }, ErrNotFound},
		{"assign nothing", func() error { return w.a.Assign(ctx, "nothing", "gw") }, ErrNotFound},
		{"assign a system identity", func() error { return w.a.Assign(ctx, d.clientID(), "gw") }, ErrInvalid},
		{"unassign what is not assigned", func() error { return w.a.Unassign(ctx, "telemetry", "gw") }, ErrNotFound},
		{"renew what is not assigned", func() error { return w.a.RenewAssignment(ctx, "telemetry", "gw") }, ErrNotFound},
		{"delete a system identity", func() error { return w.a.DeleteIdentity(ctx, d.clientID(), true) }, ErrInvalid},
		{"delete nothing", func() error { return w.a.DeleteIdentity(ctx, "nothing", true) }, ErrNotFound},
		{"disable nothing", func() error { return w.a.DisableIdentity(ctx, "nothing", true) }, ErrNotFound},
		{"assign", func() error { return w.a.Assign(ctx, "Telemetry", "GW") }, nil},
		{"assign twice", func() error { return w.a.Assign(ctx, "telemetry", "gw") }, nil},
		{"delete while assigned", func() error { return w.a.DeleteIdentity(ctx, "telemetry", false) }, ErrAssigned},
		{"delete by force", func() error { return w.a.DeleteIdentity(ctx, "telemetry", true) }, nil},
		{"delete twice", func() error { return w.a.DeleteIdentity(ctx, "telemetry", true) }, ErrNotFound},
		{"delete it once more by client id", func() error { return w.a.DeleteIdentity(ctx, id.ClientID, true) }, ErrNotFound},
		{"assign it by client id", func() error { return w.a.Assign(ctx, id.ClientID, "gw") }, ErrNotFound},
		{"same name again", func() error { _, err := w.a.CreateIdentity(ctx, "telemetry", ""); return err }, nil},
		{"delete unassigned", func() error { return w.a.DeleteIdentity(ctx, "telemetry", false) }, nil},
		{"revoke no machine", func() error { return w.a.RevokeMachine(ctx, "nobody") }, ErrNotFound},
		{"delete no machine", func() error { return w.a.DeleteMachine(ctx, "nobody") }, ErrNotFound},
		{"revoke no serial", func() error { return w.a.RevokeCertificate(ctx, "12") }, ErrNotFound},
		{"revoke nonsense", func() error { return w.a.RevokeCertificate(ctx, "zz") }, ErrInvalid},
		{"revoke", func() error { return w.a.RevokeCertificate(ctx, "0x"+d.leaf().SerialNumber.Text(16)) }, nil},
		{"revoke twice", func() error { return w.a.RevokeCertificate(ctx, d.serial()) }, ErrExists},
	} {
		if err := tc.do(); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
	list, err := w.a.Identities(ctx)
	w.must(err)
	if len(list) != 1 || list[0].Kind != "SystemAssigned" || fmt.Sprint(list[0].Machines) != "[gw]" {
		t.Errorf("got %+v", list)
	}
}

func TestAMachineHasAtMost64Identities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	w.connect("gw")
	for i := range maxIdentities + 1 {
		name := fmt.Sprintf("id-%d", i)
		_, err := w.a.CreateIdentity(ctx, name, "")
		w.must(err)
		if err := w.a.Assign(ctx, name, "gw"); errors.Is(err, ErrTooMany) != (i == maxIdentities) {
			t.Fatalf("%d: %v", i, err)
		}
	}
}

func TestCertificatesOfOneHoldingAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	first := d
	for range maxLive + 3 {
		w.clock.add(time.Minute)
		d = w.rekey(d)
	}
	m, err := w.a.MachineByName(context.Background(), "gw")
	w.must(err)
	live := 0
	for _, c := range m.Certificates {
		if c.Revoked.IsZero() {
			live++
		}
	}
	if live != maxLive || len(m.Certificates) > maxLive+maxKept {
		t.Errorf("%d valid of %d", live, len(m.Certificates))
	}
	if a := w.do(first, "POST", "/renew", nil, ""); a.status != 401 {
		t.Errorf("the oldest: %d", a.status)
	}
	if a := w.do(d, "POST", "/renew", nil, ""); a.status != 201 {
		t.Errorf("the newest: %d", a.status)
	}
	for range maxKept + maxLive {
		w.clock.add(30 * 24 * time.Hour)
		d = w.rekey(d)
	}
	m, err = w.a.MachineByName(context.Background(), "gw")
	w.must(err)
	if len(m.Certificates) > 4+maxKept {
		t.Errorf("%d certificates are kept after years", len(m.Certificates))
	}
}

func TestContactsAreRememberedWithoutAWriteEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	w.ask(d, "")
	w.clock.add(5 * time.Minute)
	commits := 0
	w.a.committed = func() { commits++ }
	for range 11 {
		w.ask(d, `"1"`)
		w.clock.add(5 * time.Minute)
	}
	if commits != 0 {
		t.Errorf("%d writes in an hour of heartbeats", commits)
	}
	w.ask(d, `"1"`)
	last := w.clock.Now()
	if commits != 1 {
		t.Errorf("%d writes after an hour", commits)
	}
	w.a.committed = nil
	w.clock.add(time.Minute)
	w.ask(d, `"1"`)
	w.restart()
	m, err := w.a.MachineByName(context.Background(), "gw")
	w.must(err)
	if !m.LastContact.Equal(last.Add(time.Minute)) {
		t.Errorf("last contact %v, want %v", m.LastContact, last.Add(time.Minute))
	}
}
