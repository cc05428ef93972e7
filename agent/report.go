package main

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"postern/agent/control"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/token"
)

// Status implements control.Agent.
func (g *graph) Status() control.Status {
	now := g.clock.Now()
	st := control.Status{
		Schema: "postern.status/1", Version: version, Mode: g.mode, PID: os.Getpid(), Started: g.started, Now: now.Wall,
		Identities: []control.Identity{}, Callers: g.callers(), Sandbox: g.sandbox, Watchdog: int64(g.host.Watchdog() / time.Second), Endpoint: g.endpointStatus(),
		Clock: control.Clock{Trusted: now.Trusted, Reason: now.Reason, Floor: g.clock.Floor()},
		Store: g.storeStatus(), Tokens: g.tokenStatus(), Authority: g.authorityStatus(now), Warnings: g.device.Warnings(),
	}
	for _, id := range g.device.List() {
		st.Identities = append(st.Identities, identityStatus(id))
	}
	system, _ := g.device.System()
	st.State, st.Name, st.Problem, st.Fix = system.State, system.Identity.Name, system.Reason, system.Fix
	st.Until = lastUseful(system, now.Wall)
	g.addProblems(&st)
	return st
}

func identityStatus(id credential.Standing) control.Identity {
	out := control.Identity{
		Kind: string(id.Identity.Kind), Name: id.Identity.Name, State: id.State, Until: id.Until,
		ClientID: id.Identity.ClientID, ObjectID: id.Identity.ObjectID, TenantID: id.Identity.TenantID,
		ResourceID: id.Identity.ResourceID, NotBefore: id.NotBefore, NotAfter: id.NotAfter, RenewAt: id.RenewAt,
		NextTry: id.NextTry, LastError: id.LastError, Exposed: id.Exposed, Reason: id.Reason, Fix: id.Fix,
	}
	if id.Credential != nil {
		out.Key = id.Credential.Protection
	}
	return out
}

// lastUseful is until when the identity serves without network: the end of its certificate.
func lastUseful(id credential.Standing, now time.Time) time.Time {
	if id.Exposed == "" && id.NotAfter.After(now) && (id.State == lifecycle.Connected || id.State == lifecycle.Offline) {
		return id.NotAfter
	}
	return time.Time{}
}

func (g *graph) authorityStatus(now lifecycle.Instant) control.Authority {
	rec, ok := g.device.Enrolment()
	if !ok {
		return control.Authority{}
	}
	failure := g.contact.LastFailure()
	last, undated := lastContact(g.contact, now, g.device.List())
	return control.Authority{
		URL: rec.AuthorityURL, LastContact: last, Undated: undated,
		LastFailure: failure.At, Failure: failure.Reason,
	}
}

// lastContact tells a contact that cannot be dated from one that never was: a
// stored one may lie ahead of the clock, and one that was never stored, since
// the power went first, has left a certificate.
func lastContact(c *lifecycle.Contact, now lifecycle.Instant, list []credential.Standing) (last time.Time, undated bool) {
	last = c.LastContact(now)
	certified := slices.ContainsFunc(list, func(id credential.Standing) bool { return !id.NotAfter.IsZero() })
	return last, last.IsZero() && (certified || c.Unproven(now))
}

func (g *graph) tokenStatus() control.Tokens {
	stats := g.broker.Stats()
	t := control.Tokens{Hits: stats.Cached, Fetched: stats.Upstream - stats.Failed}
	for _, c := range g.broker.List() {
		if c.Held {
			t.Held++
		}
		if !c.Live {
			continue
		}
		t.Cached++
		t.List = append(t.List, control.CachedToken{ClientID: c.ClientID, Resource: c.Resource, Expires: c.Expires})
		if t.Soonest.IsZero() || c.Expires.Before(t.Soonest) {
			t.Soonest = c.Expires
		}
	}
	return t
}

func (g *graph) storeStatus() control.Store {
	identity, cache := g.file.Health(), g.cache.Health()
	s := control.Store{
		Identity: identity.Mode, Cache: cache.Mode, Bytes: identity.Bytes + cache.Bytes,
		WrittenBytes: identity.WrittenToday + cache.WrittenToday, Protection: g.cfg.Key.Protection,
		Problem: cmp.Or(identity.Problem, cache.Problem),
	}
	if !g.file.Exists() {
		s.Identity = "none"
	}
	if dev, _ := g.device.Enrolment(); dev.Exposed != "" {
		s.Identity = "insecure"
	}
	if g.file.Damaged() != nil {
		s.Identity = "damaged"
	}
	return s
}

func (g *graph) endpointStatus() control.Endpoint {
	e := g.serving
	if g.keeper == nil {
		return e
	}
	h := g.keeper.Health()
	e.TokensDir, e.Problem, e.Watch = h.Path, h.Problem, "inotify"
	if !h.Watching {
		e.Watch = "polling: " + h.WatchReason
	}
	return e
}

// Token implements control.Agent.
func (g *graph) Token(ctx context.Context, r control.TokenRequest, caller token.Caller) (control.TokenAnswer, error) {
	selector := credential.Selector{}
	if r.ClientID != "" {
		selector = credential.Selector{Key: "client_id", Value: r.ClientID}
	}
	standing, err := g.broker.Resolve(selector)
	if err != nil {
		return control.TokenAnswer{}, control.NewFault(control.ExitFailed, "unknown-identity", "postern identity list", "token: %w", err)
	}
	t, err := g.broker.Token(ctx, token.Request{
		ClientID: standing.Identity.ClientID, Resource: r.Resource, Caller: caller, Flavour: "control", Refresh: r.Refresh,
	})
	if err != nil {
		return control.TokenAnswer{}, tokenFault(err)
	}
	return control.TokenAnswer{
		AccessToken: t.Value.Reveal(), ClientID: t.Identity.ClientID, Resource: t.Resource, TokenType: "Bearer",
		ExpiresOn: t.ExpiresOn.UTC().Truncate(time.Second), ExpiresIn: int64(t.Remaining / time.Second), FromCache: t.FromCache,
	}, nil
}

// Audit implements control.Agent.
func (g *graph) Audit(ctx context.Context, from uint64, follow bool, f func(line []byte) error) error {
	return g.audit.Read(ctx, from, follow, f)
}

var _ control.Agent = (*graph)(nil)

// addProblems puts what is wrong beside the identity into the status: the
// first of them becomes the problem line when the identity itself has none.
func (g *graph) addProblems(st *control.Status) {
	identity, cache := g.file.Health(), g.cache.Health()
	problems := []struct{ text, fix string }{
		{identity.Problem, identity.Fix},
		{cache.Problem, cache.Fix},
	}
	if drift := g.drift.Load(); drift != nil {
		problems = append(problems, struct{ text, fix string }{strings.TrimRight(drift.Error()+": "+drift.Fix, ": "), drift.Fix})
	}
	if g.keeper != nil {
		h := g.keeper.Health()
		problems = append(problems, struct{ text, fix string }{h.Problem, h.Fix})
	}
	for _, p := range problems {
		if p.text == "" {
			continue
		}
		if st.Problem == "" {
			st.Problem, st.Fix = p.text, p.fix
			continue
		}
		st.Warnings = append(st.Warnings, p.text)
	}
	said := map[string]bool{st.Problem: true} // two databases have one key file
	st.Warnings = slices.DeleteFunc(st.Warnings, func(w string) bool {
		again := said[w]
		said[w] = true
		return again
	})
}
