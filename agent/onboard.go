package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"postern/agent/authority"
	"postern/agent/authority/stepca"
	"postern/agent/control"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

// Connect implements control.Agent: it gives the device an identity, or with
// Again a new key for the one it has. The claim alone is enough; what the
// request or the configuration names must agree with it.
func (g *graph) Connect(ctx context.Context, r control.ConnectRequest, step func(string)) error {
	verb := "connect"
	if r.Again {
		verb = "reconnect"
	}
	claim, bad := stepca.ParseClaim(store.NewSecret(r.Claim))
	identity, unsaid := meant(verb, staticIdentities(g.cfg), r.Identity, claim)
	if r.Identity != "" && unsaid != nil {
		return unsaid
	}
	if err := g.mayConnect(verb, store.NewSecret(r.Claim), identity); err != nil {
		return err
	}
	if bad != nil {
		return control.NewFault(control.ExitUsage, "claim", "postern authority claim MACHINE   # on the authority, makes a new one", "%s: %w", verb, bad)
	}
	if unsaid != nil {
		return unsaid
	}
	o := credential.Onboarding{
		AuthorityURL: first(r.AuthorityURL, g.cfg.Authority.URL, claim.URL),
		RootSHA256:   strings.ReplaceAll(first(r.RootSHA256, g.cfg.Authority.RootSHA256, claim.RootSHA256), ":", ""), // as openssl prints it
		Claim:        store.NewSecret(r.Claim),
		Identity:     identity,
		Steps:        step,
	}
	if err := g.findRoot(ctx, verb, &o); err != nil {
		return err
	}
	do := g.device.Connect
	if r.Again {
		do = g.device.Reconnect
	}
	standing, err := do(ctx, o)
	if err != nil {
		return problemFault(verb, err)
	}
	step(fmt.Sprintf("certificate until %s, client id %s", standing.NotAfter.Format("2006-01-02"), standing.Identity.ClientID))
	return nil
}

// findRoot takes the authority's root from itself, by the fingerprint that is
// known, else from the file that the configuration names.
func (g *graph) findRoot(ctx context.Context, verb string, o *credential.Onboarding) (err error) {
	file := g.cfg.Authority.CAFile
	switch {
	case o.RootSHA256 != "":
		if o.RootPEM, err = g.upstream.root(ctx, o.AuthorityURL, o.RootSHA256); err != nil {
			return upstreamFault(verb, err)
		}
		o.Steps(fmt.Sprintf("authority %s reached, its root is the one that was named", o.AuthorityURL))
		return nil
	case file != "":
		raw, err := os.ReadFile(file)
		if err != nil {
			return control.NewFault(control.ExitUsage, "roots-file", "ls -l "+file, "%s: %w", verb, err)
		}
		o.RootPEM = string(raw)
		o.Steps("the authority's root is the one in " + file)
		return nil
	}
	return control.NewFault(control.ExitUsage, "no-root", "postern "+verb+" --root-sha256 FINGERPRINT …",
		"%s: the claim does not carry the fingerprint of the authority's root, so the authority cannot be told from another", verb)
}

// mayConnect refuses before anything is asked of the authority. An identity of
// the configuration that has no certificate yet comes beside those that have.
func (g *graph) mayConnect(verb string, claim store.Secret, identity credential.Identity) error {
	_, enrolled := g.device.Enrolment()
	if verb != "connect" || !enrolled {
		return g.keysInReach(verb)
	}
	if identity.Kind == credential.UserAssigned {
		if h, held := g.device.Holder(identity.ClientID); !held || h.Current() == nil {
			return nil
		}
	}
	system, _ := g.device.System()
	if !g.connectedBy(claim, system) {
		return control.NewFault(control.ExitFailed, "connected-otherwise", first(system.Fix, "postern status   # to begin anew: sudo postern disconnect"),
			"connect: this device is already connected, as %s (%s, %s), and not by this claim", system.Identity.Name, system.Identity.ClientID, system.State)
	}
	return control.NewFault(control.ExitFailed, "already-connected", "postern status   # to begin anew: sudo postern disconnect",
		"connect: this device is already connected, as %s (%s)", system.Identity.Name, system.Identity.ClientID)
}

// connectedBy reports whether claim can be the one that was traded for the
// identity: it names the certificate's subject, and the identity needs no other.
func (g *graph) connectedBy(claim store.Secret, system credential.Standing) bool {
	switch system.State {
	case lifecycle.Connected, lifecycle.Offline, lifecycle.ClockUntrusted:
	default:
		return false // a claim is what it waits for
	}
	h, held := g.device.Holder(system.Identity.ClientID)
	if !held || h.Current() == nil {
		return false
	}
	c, err := stepca.ParseClaim(claim)
	return err == nil && c.Subject == h.Current().Leaf().Subject.CommonName
}

// Disconnect implements control.Agent.
func (g *graph) Disconnect(ctx context.Context, localOnly bool, step func(string)) error {
	ids := g.device.List()
	if err := g.device.Disconnect(ctx, localOnly, step); err != nil {
		return problemFault("disconnect", err)
	}
	g.forget(ids)
	if err := g.empty(); err != nil {
		return fmt.Errorf("disconnect: the keys are destroyed, the tokens are not: %w", err)
	}
	step("keys and tokens are destroyed")
	return nil
}

func (g *graph) forget(ids []credential.Standing) {
	for _, id := range ids {
		g.broker.Forget(id.Identity.ClientID)
	}
}

// Renew implements control.Agent: one identity, or all of them.
func (g *graph) Renew(ctx context.Context, clientID string, step func(string)) error {
	if err := g.device.Renew(ctx, clientID, step); err != nil {
		return problemFault("renew", err)
	}
	return nil
}

// Adopt implements control.Agent.
func (g *graph) Adopt(ctx context.Context, step func(string)) error {
	if err := g.device.Adopt(ctx); err != nil {
		return problemFault("adopt", err)
	}
	step("the identity belongs to this hardware now")
	return nil
}

// Reset implements control.Agent: what is "cache", "enrolment" or "all".
func (g *graph) Reset(ctx context.Context, what string, step func(string)) error {
	if what == "enrolment" || what == "all" {
		ids := g.device.List()
		if err := g.device.Disconnect(ctx, true, step); err != nil && !errors.Is(err, credential.ErrNotConnected) {
			return problemFault("reset", err)
		}
		g.forget(ids)
		step("identity and keys are destroyed here; the authority was not told")
	}
	for _, id := range g.broker.List() {
		g.broker.Forget(id.ClientID)
	}
	if err := g.empty(); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	step("tokens are gone")
	if what != "all" {
		return nil
	}
	if err := revokeWorkloads(g.host, g.workloads); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	step("secrets of workloads are gone")
	return nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// problemFault words what stopped a verb; the exit code follows from the state
// or the class that stood in the way.
func problemFault(verb string, err error) error {
	var p *credential.Problem
	if !errors.As(err, &p) {
		return upstreamFault(verb, err)
	}
	exit := control.ExitFailed
	switch {
	case p.State != 0:
		exit = control.StateExit(p.State)
	case errors.Is(err, credential.ErrNotConnected):
		exit = control.ExitUnenrolled
	case lifecycleError(err) != nil:
		exit = classExit(lifecycleError(err).Class)
	}
	if exit == control.ExitDone {
		exit = control.ExitFailed
	}
	fix := p.Fix
	if call := brokenCall(err); call != nil {
		if errors.Is(err, credential.ErrUpstreamRecord) {
			call.before = credential.ErrUpstreamRecord.Error() + ": "
		} else if call.fault.Class() == lifecycle.ClassTransient {
			fix = call.fix(verb)
		}
		return control.NewFault(exit, p.ID, fix, "%s: %w", verb, call)
	}
	if e := lifecycleError(err); e != nil && p.ID == "claim-refused" {
		return control.NewFault(exit, p.ID, fix, "%s: %w", verb, refusedClaim{e})
	}
	f := control.NewFault(exit, p.ID, fix, "%w", err)
	f.Message = strings.ReplaceAll(f.Message, "\n", "; ") // of several identities
	return f
}

// refusedClaim is the authority's no to a claim, without the name of the call.
type refusedClaim struct{ cause *lifecycle.Error }

func (r refusedClaim) Error() string {
	return "the authority refuses the claim: " + strings.TrimPrefix(r.cause.Error(), r.cause.Op+": ")
}

// Unwrap returns the refusal with the operation in which it came.
func (r refusedClaim) Unwrap() error { return r.cause }

func lifecycleError(err error) *lifecycle.Error {
	var e *lifecycle.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

func upstreamFault(verb string, err error) error {
	e := lifecycleError(err)
	if e == nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	fix := classFix(e.Class)
	if call := brokenCall(err); call != nil {
		if e.Class == lifecycle.ClassTransient {
			fix = call.fix(verb)
		}
		err = call
	}
	return control.NewFault(classExit(e.Class), "authority-"+e.Class.String(), fix, "%s: %w", verb, err)
}

// broken is a call that came to no answer, in words for a person: to whom, and
// the one cause.
type broken struct {
	before string // what that means; may be empty
	fault  *authority.Fault
	cause  error
}

// brokenCall finds the call in err; nil if the authority did answer.
func brokenCall(err error) *broken {
	var fault *authority.Fault
	if !errors.As(err, &fault) {
		return nil
	}
	return &broken{fault: fault, cause: err}
}

func (b *broken) Error() string {
	whom, what := "the authority ", " cannot be used: "
	switch b.fault.Stage {
	case authority.StageConnect:
		what = " cannot be reached: "
	case authority.StageProxy:
		whom = "the proxy "
	}
	return b.before + whom + b.fault.Host + what + b.fault.Reason
}

// Unwrap returns the error with the operation in which it happened.
func (b *broken) Unwrap() error { return b.cause }

// fix is the command that shows more than verb could.
func (b *broken) fix(verb string) string {
	switch {
	case b.fault.Stage != authority.StageConnect:
		return classFix(lifecycle.ClassTransient)
	case verb == "connect" || verb == "reconnect":
		return "curl -v https://" + b.fault.Host + "/health   # from this device, until it answers; a claim stays good"
	}
	return "curl -v https://" + b.fault.Host + "/health   # from this device, until it answers"
}

// classFix is the next command when an authority did not do what it was asked.
func classFix(c lifecycle.Class) string {
	switch c {
	case lifecycle.ClassClock:
		return "postern check --only clock-trusted"
	case lifecycle.ClassBadResource:
		return "sudo postern authority resource add RESOURCE   # on the authority, if the resource is right"
	case lifecycle.ClassRejected, lifecycle.ClassDenied:
		return "sudo postern authority audit   # on the authority: it says why"
	}
	return "postern check --only authority-reach"
}

func classExit(c lifecycle.Class) int {
	switch c {
	case lifecycle.ClassTransient, lifecycle.ClassClock:
		return control.ExitOffline
	case lifecycle.ClassRejected, lifecycle.ClassDenied:
		return control.ExitRejected
	}
	return control.ExitFailed
}
