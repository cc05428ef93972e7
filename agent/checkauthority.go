package main

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"postern/agent/authority"
	"postern/agent/control"
)

func authorityChecks() []check {
	return []check{
		{"authority-reach", "authority", warning, checkReach},
		{"authority-tls", "authority", failed, checkTLS},
		{"authority-answer", "authority", failed, checkAnswer},
		{"authority-clock", "authority", failed, checkAuthorityClock},
		{"proxy", "authority", failed, checkProxy},
	}
}

// maxSkew is how far the authority's clock may be from ours.
const maxSkew = 5 * time.Minute

// reached is the one call of all these checks. The finding says why there is none.
func (f *facts) reached(ctx context.Context) (control.Probe, finding) {
	if why := f.enrolled(); why.verdict != "" {
		return control.Probe{}, why
	}
	if f.answer == nil {
		ctx, cancel := context.WithTimeout(ctx, authority.CallTimeout)
		defer cancel()
		p, err := f.ask(ctx)
		if err != nil {
			fault := control.AsFault(err)
			p = control.Probe{Error: fault.Message, Fix: fault.Fix}
		}
		f.answer = &p
	}
	if !f.answer.Done {
		return *f.answer, skip(first(f.answer.Fix, "sudo postern check"), "%s", f.answer.Error)
	}
	return *f.answer, finding{}
}

func checkReach(ctx context.Context, f *facts) finding {
	p, why := f.reached(ctx)
	switch {
	case why.verdict != "":
		return why
	case p.Stage == authority.StageProxy:
		return skip(only("proxy"), "the call ended at the proxy %s", p.Proxy)
	case p.Stage == authority.StageConnect:
		return warn("curl -v "+p.URL+"/health   # from this device", "%s cannot be reached: %s; what is saved goes on", p.URL, p.Reason)
	case p.Proxy != "":
		return ok("%s in %d ms, through %s", p.URL, p.Took, p.Proxy)
	}
	return ok("%s in %d ms", p.URL, p.Took)
}

// beyond skips what the call did not come to.
func beyond(p control.Probe, stages ...string) finding {
	for _, stage := range stages {
		if p.Stage == stage {
			return skip(only("authority-reach"), "the call ended before: %s", p.Reason)
		}
	}
	return finding{}
}

func checkTLS(ctx context.Context, f *facts) finding {
	p, why := f.reached(ctx)
	if why.verdict == "" {
		why = beyond(p, authority.StageConnect, authority.StageProxy)
	}
	switch {
	case why.verdict != "":
		return why
	case p.Stage == authority.StageTLS:
		return bad("openssl s_client -connect "+hostPort(p.URL)+" -showcerts </dev/null   # who answers there?", "%s: %s", p.URL, p.Reason)
	}
	return ok("its certificate leads to the pinned root")
}

func checkAnswer(ctx context.Context, f *facts) finding {
	p, why := f.reached(ctx)
	if why.verdict == "" {
		why = beyond(p, authority.StageConnect, authority.StageProxy, authority.StageTLS)
	}
	switch {
	case why.verdict != "":
		return why
	case p.Stage != "":
		return bad("sudo postern authority status   # on the authority", "%s does not answer as an authority: %s", p.URL, p.Reason)
	}
	return ok("it answers as an authority")
}

func checkAuthorityClock(ctx context.Context, f *facts) finding {
	p, why := f.reached(ctx)
	if why.verdict == "" {
		why = beyond(p, authority.StageConnect, authority.StageProxy, authority.StageTLS, authority.StageAnswer)
	}
	if why.verdict != "" {
		return why
	}
	skew := time.Duration(p.Skew) * time.Second
	if skew.Abs() > maxSkew {
		return bad("sudo timedatectl set-ntp true   # or: sudo date -s @"+unixText(p.At.Add(skew)), "our clock is %s away from the authority's", span(skew))
	}
	return ok("%s apart", span(skew))
}

// checkProxy says which proxy stands before the authority, and why it does not
// let us through.
func checkProxy(ctx context.Context, f *facts) finding {
	if file := f.cfg.ProxyCredentialsFile; file != "" {
		if _, err := secretFromFile(file); err != nil && !errors.Is(err, fs.ErrPermission) {
			fault := control.AsFault(err)
			return bad(fault.Fix, "the proxy's credentials are not used: %s", fault.Message)
		}
	}
	p, why := f.reached(ctx)
	switch {
	case why.verdict != "":
		return why
	case p.Stage == authority.StageProxy:
		return bad("curl -v --proxy "+p.Proxy+" "+p.URL+"/health   # from this device", "the proxy %s does not let us through: %s", p.Proxy, p.Reason)
	case p.Proxy == "":
		return ok("none is used")
	}
	return ok("%s lets us through", p.Proxy)
}
