package site

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/jws"
)

// image is the state directory as a power cut right after a commit leaves it,
// with what had been acknowledged by then.
type image struct {
	dir     string
	at      time.Time
	spent   []string // one-time tokens that were answered with 201
	used    []string // assertions that were answered with 200
	ended   []*device
	machine map[string]string // name -> client id, acknowledged
}

// camera takes an image at each commit.
type camera struct {
	*world
	images []image
	seen   image // what is acknowledged so far
}

func newCamera(t *testing.T) *camera {
	c := &camera{seen: image{machine: map[string]string{}}}
	c.world = newWorld(t, func(o *Options) { o.committed = func() { c.shoot() } })
	return c
}

func (c *camera) shoot() {
	if c.world == nil {
		return // still being made; see TestAPowerCutLeavesNoneOrAWholeAuthority
	}
	i := c.seen
	i.dir, i.at = c.t.TempDir(), c.clock.Now()
	i.spent, i.used, i.ended = slices.Clone(i.spent), slices.Clone(i.used), slices.Clone(i.ended)
	machines := map[string]string{}
	for k, v := range i.machine {
		machines[k] = v
	}
	i.machine = machines
	copyDir(c.t, c.dir, i.dir)
	c.images = append(c.images, i)
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The steps of a life, each noting what was acknowledged.

func (c *camera) connect(name string) *device {
	token := c.claim(ClaimRequest{Machine: name})
	d := c.sign(token)
	c.seen.spent = append(c.seen.spent, token)
	c.seen.machine[name] = d.clientID()
	return d
}

func (c *camera) jwtToken(d *device) {
	c.t.Helper()
	assertion := c.assertion(d, jws.ES256, nil)
	if a := c.token(nil, assertionForm(d, assertion, vault)); a.status != 200 {
		c.t.Fatalf("token: %d %s", a.status, a.body)
	}
	c.seen.used = append(c.seen.used, assertion)
}

func (c *camera) enroll(d *device, name string) *device {
	c.t.Helper()
	for _, i := range c.list(d).Identities {
		if i.Name == name && i.Enroll != nil {
			u := c.sign(i.Enroll.OTT)
			c.seen.spent = append(c.seen.spent, i.Enroll.OTT)
			return u
		}
	}
	c.t.Fatalf("%s is not on offer", name)
	return nil
}

func (c *camera) life() {
	ctx := context.Background()
	c.addVault()
	d := c.connect("gw")
	c.jwtToken(d)
	_, err := c.a.CreateIdentity(ctx, "telemetry", "")
	c.must(err)
	c.must(c.a.Assign(ctx, "telemetry", "gw"))
	u := c.enroll(d, "telemetry")
	c.jwtToken(u)
	c.clock.add(45 * 24 * time.Hour)
	n := c.rekey(d)
	c.jwtToken(n)
	c.selfRevoke(d, 4)
	c.seen.ended = append(c.seen.ended, d)
	c.clock.add(40 * 24 * time.Hour)
	c.jwtToken(n) // a signing key is made
	c.must(c.a.Unassign(ctx, "telemetry", "gw"))
	c.seen.ended = append(c.seen.ended, u)
	c.must(c.a.Assign(ctx, "telemetry", "gw"))
	v := c.enroll(n, "telemetry")
	token := c.claim(ClaimRequest{Machine: "gw", Reonboard: true})
	back := c.sign(token)
	c.seen.spent = append(c.seen.spent, token)
	c.seen.ended = append(c.seen.ended, n)
	c.must(c.a.DeleteIdentity(ctx, "telemetry", true))
	c.seen.ended = append(c.seen.ended, v)
	c.selfRevoke(back, 4)
	c.seen.ended = append(c.seen.ended, back)
	again := c.claim(ClaimRequest{Machine: "gw"})
	delete(c.seen.machine, "gw") // asked to be replaced: either may be found
	last := c.sign(again)
	c.seen.spent = append(c.seen.spent, again)
	c.seen.machine["gw"] = last.clientID()
	delete(c.seen.machine, "gw")
	c.must(c.a.DeleteMachine(ctx, "gw"))
	c.seen.ended = append(c.seen.ended, last)
}

func TestAPowerCutAtAnyCommitLosesNothingAndSpendsNothingTwice(t *testing.T) {
	t.Parallel()
	c := newCamera(t)
	c.life()
	if len(c.images) < 25 {
		t.Fatalf("only %d images", len(c.images))
	}
	for n, i := range c.images {
		if err := i.check(t, c.opts); err != nil {
			t.Errorf("image %d of %d: %v", n+1, len(c.images), err)
		}
	}
	t.Logf("%d power cuts", len(c.images))
}

// check opens an image and tries everything that had ended before the cut.
func (i image) check(t *testing.T, opts Options) error {
	opts.committed = nil
	opts.Now = func() time.Time { return i.at }
	a, err := Open(context.Background(), i.dir, opts)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	if err := a.checkLedger(); err != nil {
		return err
	}
	for name, clientID := range i.machine {
		m, err := a.MachineByName(context.Background(), name)
		if err != nil || m.ClientID != clientID {
			return fmt.Errorf("machine %s was acknowledged as %s, is %s: %w", name, clientID, m.ClientID, err)
		}
	}
	for _, token := range i.spent {
		body := signBody(t, newKey(t), token)
		if got := serveLocal(a, "/1.0/sign", fmt.Sprintf(`{"csr":%q,"ott":%q}`, body["csr"], token)); got != http.StatusUnauthorized {
			return fmt.Errorf("a spent one-time token is answered with %d", got)
		}
	}
	for _, assertion := range i.used {
		form := url.Values{
			"grant_type": {"client_credentials"}, "client_id": {fmt.Sprint(payload(t, assertion)["sub"])}, "resource": {vault},
			"client_assertion_type": {assertionType}, "client_assertion": {assertion},
		}
		if got := serveLocal(a, "/"+a.tenant+"/oauth2/v2.0/token", form.Encode()); got == http.StatusOK {
			return fmt.Errorf("a used assertion earns a token")
		}
	}
	for _, d := range i.ended {
		if _, err := a.lookUp(d.serial(), d.leaf().Raw); err == nil {
			return fmt.Errorf("certificate %s of %s has ended and works", d.serial(), d.clientID())
		}
	}
	return a.checkLedger()
}

// serveLocal posts to an authority that is not being served.
func serveLocal(a *Authority, path, body string) int {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	if !strings.HasPrefix(body, "{") {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, r)
	return w.Code
}

func TestAPowerCutLeavesNoneOrAWholeAuthority(t *testing.T) {
	t.Parallel()
	dir, copied := t.TempDir(), t.TempDir()
	opts := testOptions(&wall{now: start})
	commits := 0
	opts.committed = func() {
		commits++
		if commits == 1 {
			copyDir(t, dir, copied)
		}
	}
	a, err := Open(context.Background(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	root := a.RootSHA256()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	opts.committed = nil
	b, err := Open(context.Background(), copied, opts)
	if err != nil {
		t.Fatal(err)
	}
	if b.RootSHA256() != root || commits != 1 {
		t.Errorf("root changed, or it took %d commits", commits)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAnAuthorityWithoutItsKeyIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connect("gw")
	copied := t.TempDir()
	copyDir(t, w.dir, copied)
	if err := os.Remove(filepath.Join(copied, "authority.key")); err != nil {
		t.Fatal(err)
	}
	if a, err := Open(context.Background(), copied, testOptions(w.clock)); err == nil {
		t.Errorf("opened: %v", a.Close())
	} else if !strings.Contains(err.Error(), "restore both") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(copied, "authority.key")); err == nil {
		t.Error("a key was made beside an old database")
	}
}

func TestNothingIsAnsweredWhenACommitFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	token := w.claim(ClaimRequest{Machine: "other"})
	w.must(w.a.db.Close())
	if a := w.post(nil, "/sign", signBody(t, newKey(t), token)); a.status != 500 || strings.Contains(string(a.body), "BEGIN") {
		t.Errorf("sign: %d %s", a.status, a.body)
	}
	if a := w.tokenFor(d, vault); a.status != 500 || decodeAs[oauthAnswer](t, a).AccessToken != "" || decodeAs[oauthAnswer](t, a).Error != "server_error" {
		t.Errorf("token: %d %s", a.status, a.body)
	}
	if a := w.do(d, "POST", "/renew", nil, ""); a.status != 500 {
		t.Errorf("renew: %d %s", a.status, a.body)
	}
	w.stop()
	w.open()
}
