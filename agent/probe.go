package main

import (
	"context"
	"errors"
	"net/url"
	"time"

	"postern/agent/authority"
	"postern/agent/control"
	"postern/agent/credential"
)

// Probe implements control.Agent: it asks the authority for its health with the
// roots, the proxy and the client that everything else uses.
func (g *graph) Probe(ctx context.Context) control.Probe {
	rec, ok := g.device.Enrolment()
	if !ok {
		return control.Probe{Error: "this device is not connected", Fix: "sudo postern connect --claim-file CLAIM"}
	}
	p := control.Probe{URL: rec.AuthorityURL, Proxy: g.proxyHost(), At: g.clock.Now().Wall}
	driver, err := g.upstream.Authority(rec)
	if err != nil {
		f := control.AsFault(err)
		p.Error, p.Fix = f.Message, f.Fix
		return p
	}
	beat, ok := driver.(credential.Heartbeater)
	if !ok {
		p.Error, p.Fix = "this kind of authority cannot be asked for its health", "postern renew"
		return p
	}
	began := time.Now()
	err = beat.Heartbeat(ctx)
	p.Took, p.Done = time.Since(began).Milliseconds(), true
	p.Skew = int64(g.clock.Offset() / time.Second)
	if err == nil {
		p.Dated = true
		return p
	}
	p.Stage, p.Reason = authority.StageAnswer, err.Error()
	var fault *authority.Fault
	if errors.As(err, &fault) {
		p.Stage, p.Reason = fault.Stage, fault.Reason
	}
	return p
}

// proxyHost names the proxy without its credentials; empty for none.
func (g *graph) proxyHost() string {
	var c authority.Config
	if err := g.upstream.proxy(&c); err != nil || c.Proxy == nil {
		return ""
	}
	return (&url.URL{Scheme: c.Proxy.Scheme, Host: c.Proxy.Host}).String()
}
