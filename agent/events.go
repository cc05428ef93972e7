package main

import (
	"sync"
	"time"

	"postern/agent/audit"
	"postern/agent/challenge"
	"postern/agent/control"
	"postern/agent/credential"
	"postern/agent/token"
)

// identityEvent keeps what happened to an identity.
func (g *graph) identityEvent(e credential.Event) {
	if e.Kind == credential.EventUnassigned {
		g.broker.Forget(e.Identity.ClientID)
	}
	name, kept := auditNames[e.Kind]
	if !kept {
		return
	}
	event := audit.Event{Name: name, Reason: eventReason(e), Identity: e.Identity.ClientID, Logged: true}
	if name == audit.Connected || name == audit.Renewed {
		event.Expires = e.Until // of the certificate; of a state it says something else
	}
	if e.Kind == credential.EventDisconnected {
		g.parted.add(event)
		return
	}
	g.audit.Record(event)
}

// parted are identities that are gone and of which the audit has not heard: the
// ring is in the cache, and what was said before that is emptied goes with it.
type parted struct {
	mu     sync.Mutex
	events []audit.Event
}

func (p *parted) add(e audit.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
}

func (p *parted) take() []audit.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	events := p.events
	p.events = nil
	return events
}

// empty drops the tokens and all else in the cache, and then says in a new ring
// why the one before it ended.
func (g *graph) empty() error {
	err := g.cache.Drop()
	for _, e := range g.parted.take() {
		g.audit.Record(e)
	}
	return err
}

// tokenEvent keeps who took or was refused which token.
func (g *graph) tokenEvent(e token.Event) {
	g.recent.add(call{at: e.Time, caller: e.Request.Caller, resource: e.Request.Resource})
	g.audit.Record(audit.Event{
		Name: audit.Name(e.Name), Reason: e.Reason, Flavour: e.Request.Flavour, Identity: e.Identity.ClientID,
		Resource: e.Request.Resource, Peer: e.Request.Caller.Peer, Listener: e.Request.Caller.Listener,
		Agent: e.Request.Caller.Agent, Source: e.Source, Token: e.Token, Expires: e.Expires,
	})
}

// challengeEvent keeps what happened to the token directory.
func (g *graph) challengeEvent(e challenge.Event) {
	g.audit.Record(audit.Event{Name: audit.AccessDrift, Reason: e.Name + ": " + e.Path + ": " + e.Reason, Logged: true})
}

// auditNames are the events of an identity that the audit keeps.
var auditNames = map[string]audit.Name{
	credential.EventStateChanged: audit.StateChanged, credential.EventExpired: audit.StateChanged,
	credential.EventMoved: audit.StateChanged, credential.EventClockUntrusted: audit.StateChanged,
	credential.EventClockTrusted: audit.StateChanged, credential.EventAuthorityLost: audit.StateChanged,
	credential.EventAuthorityRegained: audit.StateChanged, credential.EventRenewed: audit.Renewed,
	credential.EventConnected: audit.Connected, credential.EventDisconnected: audit.Disconnected,
	credential.EventAssigned: audit.Connected, credential.EventUnassigned: audit.Disconnected,
	credential.EventAccessDrift: audit.AccessDrift,
}

// eventReason says from which state to which, and why.
func eventReason(e credential.Event) string {
	if e.Previous == 0 {
		if e.Reason == "" && e.State != 0 { // the first look after a start
			return e.State.String()
		}
		return e.Reason
	}
	change := e.Previous.String() + " to " + e.State.String()
	if e.Reason == "" {
		return change
	}
	return change + ": " + e.Reason
}

const recentCallers = 8

// call is who asked for what, and when.
type call struct {
	at       time.Time
	caller   token.Caller
	resource string
}

// recent remembers who asked last. Adding costs nothing but the lock: names
// are looked up by whoever reads. Safe for concurrent use.
type recent struct {
	mu   sync.Mutex
	ring [recentCallers]call
	next int
}

func (r *recent) add(c call) {
	r.mu.Lock()
	r.ring[r.next%recentCallers] = c
	r.next++
	r.mu.Unlock()
}

// all returns the calls, newest first.
func (r *recent) all() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]call, 0, recentCallers)
	for i := r.next - 1; i >= 0 && i > r.next-1-recentCallers; i-- {
		list = append(list, r.ring[i%recentCallers])
	}
	return list
}

func (g *graph) callers() []control.LastCaller {
	var list []control.LastCaller
	for _, c := range g.recent.all() {
		list = append(list, control.LastCaller{
			Time: c.at, Peer: c.caller.Peer.String(), User: g.host.UserName(c.caller.Peer), Resource: c.resource, Agent: c.caller.Agent,
		})
	}
	return list
}
