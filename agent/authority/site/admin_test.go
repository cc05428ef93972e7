package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// administration is what the far end must be able to do as well.
type administration interface {
	Info(context.Context) (Info, error)
	CreateClaim(context.Context, ClaimRequest) (Claim, error)
	CreateIdentity(ctx context.Context, name, group string) (Identity, error)
	DeleteIdentity(ctx context.Context, name string, force bool) error
	DisableIdentity(ctx context.Context, name string, disabled bool) error
	Assign(ctx context.Context, identity, machine string) error
	RenewAssignment(ctx context.Context, identity, machine string) error
	Unassign(ctx context.Context, identity, machine string) error
	Identities(context.Context) ([]Identity, error)
	Machines(context.Context) ([]Machine, error)
	MachineByName(ctx context.Context, name string) (Machine, error)
	DeleteMachine(ctx context.Context, name string) error
	RevokeMachine(ctx context.Context, name string) error
	RevokeCertificate(ctx context.Context, serial string) error
	AddResource(context.Context, Resource) error
	RemoveResource(ctx context.Context, identifier string) error
	Resources(context.Context) ([]Resource, error)
	Audit(context.Context, AuditQuery) (AuditPage, error)
}

var (
	_ administration = (*Authority)(nil)
	_ administration = (*Admin)(nil)
)

// adminWorld serves the admin socket; admit decides who may.
func adminWorld(t *testing.T, admit func(net.Conn) (string, bool)) (*world, *Admin, string) {
	t.Helper()
	w := newWorld(t, func(o *Options) { o.Administrator = admit })
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", path)
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.a.ServeAdmin(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w, NewAdmin(func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) }), path
}

func root(net.Conn) (string, bool) { return "uid:0", true }

func TestTheAdminSocketDoesWhatTheMethodsDo(t *testing.T) {
	t.Parallel()
	w, admin, _ := adminWorld(t, root)
	ctx := context.Background()
	w.must(admin.AddResource(ctx, Resource{Identifier: vault, Life: time.Hour}))
	c, err := admin.CreateClaim(ctx, ClaimRequest{Machine: "gw", Group: "plant", Location: "hall 3", Tags: map[string]string{"line": "7"}, Life: time.Hour})
	w.must(err)
	if !c.Expires.Equal(start.Add(time.Hour)) || c.Machine != "gw" {
		t.Errorf("claim %v", c)
	}
	d := w.sign(c.Token.Reveal())
	i, err := admin.CreateIdentity(ctx, "telemetry", "plant")
	w.must(err)
	w.must(admin.Assign(ctx, "telemetry", "gw"))
	u := w.fetch(d, "telemetry")
	w.must(admin.RenewAssignment(ctx, i.ClientID, "gw"))
	w.must(admin.DisableIdentity(ctx, "telemetry", true))
	w.must(admin.DisableIdentity(ctx, "telemetry", false))
	m, err := admin.MachineByName(ctx, "gw")
	w.must(err)
	if m.Group != "plant" || m.Location != "hall 3" || m.Tags["line"] != "7" || m.CreatedBy != "uid:0" || fmt.Sprint(m.Identities) != "[telemetry]" || len(m.Certificates) != 2 {
		t.Errorf("machine %+v", m)
	}
	all, err := admin.Machines(ctx)
	w.must(err)
	ids, err := admin.Identities(ctx)
	w.must(err)
	resources, err := admin.Resources(ctx)
	w.must(err)
	if len(all) != 1 || len(ids) != 2 || len(resources) != 1 || resources[0].Life != time.Hour || fmt.Sprint(ids[1].Machines) != "[gw]" {
		t.Errorf("got %v %v %v", all, ids, resources)
	}
	w.must(admin.RevokeCertificate(ctx, u.serial()))
	w.must(admin.Unassign(ctx, "telemetry", "gw"))
	w.must(admin.DeleteIdentity(ctx, "telemetry", true))
	w.must(admin.RevokeMachine(ctx, "gw"))
	w.must(admin.DeleteMachine(ctx, "gw"))
	w.must(admin.RemoveResource(ctx, vault))
	info, err := admin.Info(ctx)
	w.must(err)
	here, err := w.a.Info(ctx)
	w.must(err)
	if fmt.Sprint(info) != fmt.Sprint(here) || info.Deleted != 2 || info.Machines != 0 {
		t.Errorf("got %+v\nwant %+v", info, here)
	}
	page, err := admin.Audit(ctx, AuditQuery{Limit: 1000, Export: true})
	w.must(err)
	if _, err := verifyAudit(page.Lines, ""); err != nil || len(page.Lines) < 15 {
		t.Errorf("%d lines: %v", len(page.Lines), err)
	}
	for _, e := range w.audit() {
		if strings.HasPrefix(e.Action, "identity-") && e.Principal != "uid:0" {
			t.Errorf("principal of %s is %q", e.Action, e.Principal)
		}
	}
}

func TestSentinelsCrossTheAdminSocket(t *testing.T) {
	t.Parallel()
	w, admin, _ := adminWorld(t, root)
	ctx := context.Background()
	w.connect("gw")
	_, err := admin.CreateIdentity(ctx, "telemetry", "")
	w.must(err)
	w.must(admin.Assign(ctx, "telemetry", "gw"))
	_, err = admin.CreateClaim(ctx, ClaimRequest{Machine: "gw"})
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "reonboard") {
		t.Errorf("got %v", err)
	}
	if _, err := admin.MachineByName(ctx, "x"); !errors.Is(err, ErrNotFound) || err.Error() != `machine "x": not found` {
		t.Errorf("got %v", err)
	}
	if err := admin.DeleteIdentity(ctx, "telemetry", false); !errors.Is(err, ErrAssigned) {
		t.Errorf("got %v", err)
	}
	if err := admin.AddResource(ctx, Resource{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestOnlyAdministratorsAreServed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var asked atomic.Int32
	for name, admit := range map[string]func(net.Conn) (string, bool){
		"another account": func(c net.Conn) (string, bool) {
			asked.Add(1)
			if _, ok := c.(*net.UnixConn); !ok {
				t.Errorf("asked about a %T", c)
			}
			return "uid:1000", false
		},
		"nobody decides": nil,
	} {
		w, admin, _ := adminWorld(t, admit)
		if _, err := admin.Info(ctx); !errors.Is(err, ErrNotAdministrator) {
			t.Errorf("%s: info: got %v", name, err)
		}
		if _, err := admin.CreateIdentity(ctx, "x", ""); !errors.Is(err, ErrNotAdministrator) {
			t.Errorf("%s: create: got %v", name, err)
		}
		if list, err := w.a.Identities(ctx); err != nil || len(list) != 0 {
			t.Errorf("%s: something was made: %v %v", name, list, err)
		}
	}
	if asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestTheAdminSocketRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	w, _, path := adminWorld(t, root)
	c := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	for _, tc := range []struct {
		method, verb, body string
		status             int
	}{
		{"POST", "machine", `{"name":"x","more":1}`, 409},
		{"POST", "machine", `x`, 409},
		{"POST", "machine", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 400},
		{"GET", "machine", ``, 405},
		{"POST", "nothing", `{}`, 404},
	} {
		r, err := http.NewRequest(tc.method, "http://x/"+tc.verb, strings.NewReader(tc.body))
		w.must(err)
		res, err := c.Do(r)
		w.must(err)
		raw, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != tc.status {
			t.Errorf("%s %s %.20s: got %d %s", tc.method, tc.verb, tc.body, res.StatusCode, raw)
		}
	}
}

func TestTheAdminClientNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	admin := NewAdmin(func(context.Context) (net.Conn, error) { return nil, errors.New("nobody listens") })
	if _, err := admin.Info(context.Background()); err == nil || !strings.Contains(err.Error(), "authority info") || !strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("got %v", err)
	}
	if err := remote("x", 500, []byte("no json")); err == nil || err.Error() != "authority x: status 500" {
		t.Errorf("got %v", err)
	}
}
