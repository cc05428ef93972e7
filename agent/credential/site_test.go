package credential_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/oauth"
	"postern/agent/authority/stepca"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

// rig is a device with the real drivers, at the real site authority.
type rig struct {
	*credential.Device
	t      *testing.T
	site   *authoritytest.Site
	issuer *oauth.Issuer
	events []credential.Event
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRig(t *testing.T, w *authoritytest.World) *rig {
	t.Helper()
	r := &rig{t: t, site: authoritytest.StartSite(t, w)}
	clients := r.site.Clients()
	file, err := store.OpenIdentity(t.Context(), t.TempDir(), store.Options{})
	must(t, err)
	r.issuer, err = oauth.New(oauth.Config{Issuer: r.site.URL, Auth: oauth.TLSClientAuth, ResourceParam: oauth.ResourceParam, Clients: clients, Clock: w.Clock})
	must(t, err)
	r.Device, err = credential.Open(credential.Options{
		File: file, Clock: w.Clock, Event: func(e credential.Event) { r.events = append(r.events, e) },
		Dial: func(dev store.DeviceRecord) (credential.Authority, error) {
			return stepca.New(stepca.Config{URL: dev.AuthorityURL, Clients: clients, Clock: w.Clock})
		},
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.OnStop(func() {
		cancel()
		if err := errors.Join(<-done, file.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) onboarding(again bool) credential.Onboarding {
	return credential.Onboarding{
		AuthorityURL: r.site.URL, RootPEM: r.site.RootPEM(), RootSHA256: r.site.RootSHA256(), Claim: r.site.Claim(r.t, "gw-0042", again),
	}
}

// token asks for a token as the broker does.
func (r *rig) token(st credential.Standing) error {
	r.t.Helper()
	st, ok := r.Standing(st.Identity.ClientID)
	if !ok || st.Credential == nil || st.State != lifecycle.Connected {
		r.t.Fatalf("%s: %s: %s", st.Identity.Name, st.State, st.Reason)
	}
	_, err := r.issuer.Issue(r.t.Context(), st.Credential, authoritytest.Resource)
	r.Observe(st.Identity.ClientID, st.Credential, err)
	return err
}

func (r *rig) named(name string) (credential.Standing, bool) {
	for _, st := range r.List() {
		if st.Identity.Name == name {
			return st, true
		}
	}
	return credential.Standing{}, false
}

// The whole life of a device's identities, with nothing faked but the network.
func TestLifeAtTheSiteAuthority(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		r := newRig(t, w)
		ctx := t.Context()
		_, err := r.site.CreateIdentity(ctx, "telemetry", "plant")
		must(t, err)
		sys, err := r.Connect(ctx, r.onboarding(false))
		must(t, err)
		if id := sys.Identity; id.Name != "gw-0042" || id.Kind != credential.SystemAssigned || id.ObjectID == "" || id.ResourceID == "" || id.TenantID == "" {
			t.Fatalf("identity: %+v", id)
		}
		must(t, r.token(sys))

		must(t, r.site.Assign(ctx, "telemetry", "gw-0042"))
		time.Sleep(6 * time.Minute)
		user, ok := r.named("telemetry")
		if !ok {
			t.Fatalf("not enrolled: %+v", r.events)
		}
		must(t, r.token(user))

		time.Sleep(2 * time.Hour)
		must(t, r.Renew(ctx, "", nil))
		for _, st := range []credential.Standing{sys, user} {
			now, _ := r.Standing(st.Identity.ClientID)
			if !now.NotAfter.After(st.NotAfter) || now.Previous == nil {
				t.Fatalf("%s was not renewed: ends %s; %+v", st.Identity.Name, now.NotAfter, now.LastError)
			}
			must(t, r.token(st))
			time.Sleep(time.Minute) // the old certificate is withdrawn
			if _, err := r.issuer.Issue(ctx, st.Credential, authoritytest.Resource); lifecycle.ClassOf(err) != lifecycle.ClassRejected {
				t.Errorf("%s: the old certificate still earns tokens: %v", st.Identity.Name, err)
			}
			must(t, r.token(st))
		}

		must(t, r.site.Unassign(ctx, "telemetry", "gw-0042"))
		time.Sleep(6 * time.Minute)
		if _, ok := r.named("telemetry"); ok {
			t.Error("the unassigned identity is still here")
		}

		again, err := r.Reconnect(ctx, r.onboarding(true))
		must(t, err)
		if again.Identity != sys.Identity {
			t.Errorf("another identity after reconnect: %+v, was %+v", again.Identity, sys.Identity)
		}
		must(t, r.token(again))
		must(t, r.Disconnect(ctx, false, nil))
		if len(r.List()) != 0 {
			t.Errorf("left: %+v", r.List())
		}
		if _, err := r.issuer.Issue(ctx, again.Credential, authoritytest.Resource); err == nil {
			t.Error("a token after disconnect")
		}
		fresh, err := r.Connect(ctx, r.onboarding(false))
		if err != nil {
			t.Fatalf("connect after disconnect: %v", err)
		}
		if fresh.Identity.ClientID == sys.Identity.ClientID {
			t.Error("disconnect and connect gave the same identity")
		}
	})
}

// A machine that was revoked is told twice, and comes back by an operator only.
func TestRevokedMachineAtTheSiteAuthority(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		r := newRig(t, w)
		sys, err := r.Connect(t.Context(), r.onboarding(false))
		must(t, err)
		must(t, r.site.RevokeMachine(t.Context(), "gw-0042"))
		time.Sleep(17 * time.Minute)
		if st, _ := r.Standing(sys.Identity.ClientID); st.State != lifecycle.Rejected {
			t.Fatalf("revoked, and the state is %s", st.State)
		}
		time.Sleep(3 * time.Hour)
		if st, _ := r.Standing(sys.Identity.ClientID); st.State != lifecycle.Rejected {
			t.Errorf("it came back by itself: %s", st.State)
		}
		if _, err := r.Reconnect(t.Context(), r.onboarding(true)); err != nil {
			t.Fatal(err)
		}
		must(t, r.token(sys))
	})
}
