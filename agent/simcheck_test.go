package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
)

// simKey is what a program asks for: an identity, by name, and a resource.
type simKey struct{ clientID, resource string }

// simToken is the newest token that a program was given.
type simToken struct {
	expires time.Time // true time
	got     time.Time // true time
	bootID  string
}

// simFigures are what a life has cost.
type simFigures struct {
	awake             time.Duration
	asked, served     int
	dials             int64
	cacheBytes        int64 // written to cache.db
	identityBytes     int64 // written to identity.db
	renewals, expired int
	lives             int
	days              float64
}

func (f *simFigures) add(g simFigures) {
	f.awake += g.awake
	f.asked, f.served, f.dials = f.asked+g.asked, f.served+g.served, f.dials+g.dials
	f.cacheBytes, f.identityBytes = f.cacheBytes+g.cacheBytes, f.identityBytes+g.identityBytes
	f.renewals, f.expired, f.lives = f.renewals+g.renewals, f.expired+g.expired, f.lives+1
	f.days += g.days
}

func (f *simFigures) print(t *testing.T) {
	awake := f.awake.Hours() / 24
	t.Logf("%d lives, %.0f days, %.1f of them awake; %d requests, %d served; %d renewals, %d reconnects; %.0f connections to the authority and %.2f MB to cache.db, %.2f MB to identity.db a day awake",
		f.lives, f.days, awake, f.asked, f.served, f.renewals, f.expired, float64(f.dials)/awake, float64(f.cacheBytes)/awake/1e6, float64(f.identityBytes)/awake/1e6)
}

func (f *simFigures) took(g *graph) {
	f.cacheBytes += g.cache.Health().Written
	f.identityBytes += g.file.Health().Written
}

// simClaims are the claims of an access token that programs go by.
type simClaims struct {
	Audience string `json:"aud"`
	AppID    string `json:"appid"`
	Expires  int64  `json:"exp"`
	Issued   int64  `json:"iat"`
}

// answer is what a program got.
type simAnswer struct {
	status int
	body   string
	claims simClaims
}

// get is one HTTP request of a program on this device.
func (s *simulation) get(base, version string, key simKey, header http.Header) (status int, challenge, body string, err error) {
	query := url.Values{"api-version": {version}, "resource": {key.resource}, "client_id": {key.clientID}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+base+"/metadata/identity/oauth2/token?"+query.Encode(), nil)
	if err != nil {
		return 0, "", "", err
	}
	req.Header = header
	client := &http.Client{Transport: &http.Transport{DialContext: s.sim.Dial, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("Www-Authenticate"), string(content), err
}

// request asks as a program does: by IMDS, or by Arc with its challenge.
func (s *simulation) request(key simKey, arc bool) (simAnswer, error) {
	header := http.Header{"Metadata": {"true"}}
	base, version := simIMDS, "2018-02-01"
	if arc {
		base, version = simArc, "2020-06-01"
	}
	status, challenge, body, err := s.get(base, version, key, header)
	if err == nil && arc && status == http.StatusUnauthorized {
		path := strings.TrimPrefix(challenge, "Basic realm=")
		secret, rerr := os.ReadFile(path)
		if rerr != nil {
			return simAnswer{}, fmt.Errorf("challenge: %w", rerr)
		}
		header.Set("Authorization", "Basic "+string(secret))
		status, _, body, err = s.get(base, version, key, header)
	}
	if err != nil {
		return simAnswer{}, err
	}
	a := simAnswer{status: status, body: body}
	if a.status == http.StatusOK {
		a.claims, err = readClaims(body)
	}
	return a, err
}

func readClaims(body string) (c simClaims, err error) {
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return c, err
	}
	parts := strings.Split(answer.Token, ".")
	if len(parts) != 3 {
		return c, fmt.Errorf("token of %d parts", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(payload, &c)
}

// ask makes one request and judges its answer. It reports whether there was a token.
func (s *simulation) ask(key simKey, arc bool) bool {
	s.t.Helper()
	s.figures.asked++
	owed := s.owed(key)
	a, err := s.request(key, arc)
	if err != nil {
		s.wrong("request for %s: %v", key.resource, err)
		return false
	}
	if a.status != http.StatusOK {
		if owed != "" && s.owed(key) != "" {
			s.wrong("no token for %s, status %d %s, though %s", key.resource, a.status, a.body, owed)
		}
		return false
	}
	s.figures.served++
	now, clock := s.truth(), s.sim.Clock()
	if issued := time.Unix(a.claims.Issued, 0).UTC(); issued.After(s.used[key.clientID]) {
		s.used[key.clientID] = issued
	}
	expires := time.Unix(a.claims.Expires, 0).UTC()
	if late := now.Sub(expires); late >= s.lag()+time.Second {
		s.wrong("a token for %s was handed out %v after its end", key.resource, late)
	}
	if !strings.EqualFold(a.claims.AppID, key.clientID) || a.claims.Audience != key.resource {
		s.wrong("asked for %v, got the token of %s for %s", key, a.claims.AppID, a.claims.Audience)
	}
	if old := s.tokens[key]; !expires.Equal(old.expires) {
		s.tokens[key] = simToken{expires: expires, got: now, bootID: clock.BootID}
	}
	return true
}

// lag is by how much the device's clock may be behind and still be trusted.
func (s *simulation) lag() time.Duration {
	return min(max(s.truth().Sub(s.sim.Clock().Wall), 0), lifecycle.ClockTolerance)
}

// owed says why a cached token must be served now; empty if it need not be.
func (s *simulation) owed(key simKey) string {
	tok, ok := s.tokens[key]
	ahead := min(max(s.sim.Clock().Wall.Sub(s.truth()), 0), lifecycle.ClockTolerance)
	if !ok || s.truth().Add(30*time.Second+ahead).After(tok.expires) {
		return ""
	}
	st, ok := s.g.device.Standing(key.clientID)
	sameBoot := tok.bootID == s.sim.Clock().BootID
	if !ok || !st.State.ServesCached(sameBoot) {
		return ""
	}
	return fmt.Sprintf("one of %s lives until %s and the state is %s", tok.got.Format(time.DateTime), tok.expires.Format(time.DateTime), st.State)
}

// check holds the agent against the truth.
func (s *simulation) check() {
	s.t.Helper()
	now, clock, instant := s.truth(), s.sim.Clock(), s.g.clock.Now()
	gap := clock.Wall.Sub(now).Abs()
	if instant.Trusted && gap > lifecycle.ClockTolerance+time.Second {
		s.wrong("a clock that is %v off is trusted: %s", gap, instant.Reason)
	}
	right := clock.Synchronised && gap < time.Second
	if right && !instant.Trusted {
		s.wrong("a right clock is not trusted: %s", instant.Reason)
	}
	for _, st := range s.g.device.List() {
		s.checkStanding(st, now, instant.Trusted, right)
	}
	s.checkGrowth()
}

func (s *simulation) checkStanding(st credential.Standing, now time.Time, trusted, right bool) {
	s.t.Helper()
	id := st.Identity.Name
	switch st.State {
	case lifecycle.Damaged, lifecycle.Moved, lifecycle.Unenrolled, lifecycle.Rejected:
		s.wrong("%s is %s: %s", id, st.State, st.Reason)
		return
	case lifecycle.Expired:
		if !trusted || now.Add(s.tolerance()).Before(st.NotAfter) {
			s.wrong("%s is Expired at %s, its certificate ends %s, clock trusted %t", id, now, st.NotAfter, trusted)
		}
	case lifecycle.ClockUntrusted:
		if trusted {
			s.wrong("%s is ClockUntrusted under a trusted clock", id)
		}
	default:
		if !trusted || !now.Add(-s.tolerance()).Before(st.NotAfter) {
			s.wrong("%s is %s at %s, its certificate ends %s, clock trusted %t", id, st.State, now, st.NotAfter, trusted)
		}
	}
	if right && (st.State == lifecycle.Expired) == now.Before(st.NotAfter) {
		s.wrong("%s is %s at %s, its certificate ends %s", id, st.State, now, st.NotAfter)
	}
	if st.Credential == nil || st.Exposed != "" {
		s.wrong("%s has no credential to use, exposed %q", id, st.Exposed)
		return
	}
	s.checkCredential(st, now)
}

// tolerance is by how much a trusted clock is off now.
func (s *simulation) tolerance() time.Duration {
	return min(s.sim.Clock().Wall.Sub(s.truth()).Abs(), lifecycle.ClockTolerance) + time.Second
}

// checkCredential: it is never an older one than before, the authority knows
// it, and it was renewed if that was possible.
func (s *simulation) checkCredential(st credential.Standing, now time.Time) {
	s.t.Helper()
	id := st.Identity.ClientID
	switch best := s.best[id]; {
	case st.NotAfter.Before(best):
		s.wrong("%s fell back to a certificate until %s from one until %s", st.Identity.Name, st.NotAfter, best)
	case st.NotAfter.After(best):
		if !best.IsZero() {
			s.figures.renewals++
			s.checkWindow(st)
		}
		s.best[id] = st.NotAfter
	}
	if !s.good.IsZero() && time.Since(s.good) >= simPatience && st.State != lifecycle.Expired && now.Sub(st.RenewAt) > simPatience {
		s.wrong("%s was due for renewal at %s, the authority has been there since %v, and it has not been renewed: %s", st.Identity.Name, st.RenewAt, time.Since(s.good), st.LastError)
	}
}

// simPatience is within what anything due is done once clock and link are right.
const simPatience = 12 * time.Minute

// checkWindow: no certificate is renewed before its time. One of an assigned
// identity that has not earned a token may be issued again: its authority
// cannot know that it arrived.
func (s *simulation) checkWindow(st credential.Standing) {
	s.t.Helper()
	used := s.used[st.Identity.ClientID]
	earned := used.After(s.best[st.Identity.ClientID].Add(2*time.Second-90*lifecycle.Day)) && used.Before(st.NotAfter.Add(-90*lifecycle.Day))
	if left := s.best[st.Identity.ClientID].Sub(st.NotBefore); left > 50*lifecycle.Day && earned {
		s.wrong("%s was renewed with %v left", st.Identity.Name, left)
	}
}

// checkKnown: the authority knows the certificates in use and has withdrawn none.
func (s *simulation) checkKnown() {
	s.t.Helper()
	m, err := s.site.MachineByName(context.Background(), simName)
	s.must(err)
	alive := map[string]bool{}
	for _, c := range m.Certificates {
		alive[c.Serial] = c.Revoked.IsZero()
	}
	for _, st := range s.g.device.List() {
		if st.Credential == nil || s.truth().After(st.NotAfter) {
			continue
		}
		if serial := st.Credential.Leaf().SerialNumber.String(); !alive[serial] {
			s.wrong("%s uses certificate %s, which the authority does not know or has withdrawn", st.Identity.Name, serial)
		}
	}
}

// user is the standing of the user-assigned identity; false if there is none.
func (s *simulation) user() (credential.Standing, bool) {
	for _, st := range s.g.device.List() {
		if st.Identity.Kind == credential.UserAssigned {
			return st, true
		}
	}
	return credential.Standing{}, false
}

// checkGrowth bounds what lies in the state directory.
func (s *simulation) checkGrowth() {
	s.t.Helper()
	entries, err := os.ReadDir(s.sim.Dirs().State)
	s.must(err)
	var sum int64
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(s.sim.Dirs().State, e.Name())); err == nil {
			sum += info.Size()
		}
	}
	if len(entries) > 12 || sum > 12<<20 {
		s.wrong("the state directory holds %d files of %d bytes", len(entries), sum)
	}
}

// onDial watches who contacts the authority: nobody whose certificates are
// over. A call that was under way when the machine fell asleep may end.
func (s *simulation) onDial() {
	g := s.live.Load()
	if g == nil || time.Since(time.Unix(0, s.woke.Load())) < 90*time.Second {
		return
	}
	list := g.device.List()
	for _, st := range list {
		if st.State != lifecycle.Expired || s.truth().Sub(st.NotAfter) < 2*time.Minute || s.reconnecting.Load() {
			return
		}
	}
	if len(list) > 0 {
		s.wrong("the authority is contacted although every identity is Expired")
	}
}

// checkAudit walks the chain.
func (s *simulation) checkAudit() {
	s.t.Helper()
	proof, err := s.g.audit.Verify(context.Background())
	s.must(err)
	if !proof.Whole() {
		s.wrong("audit: %s %v", proof.Says(), proof.Breaks)
	}
}
