package main

import (
	"fmt"
	"os"

	"postern/agent/audit"
	"postern/agent/challenge"
	"postern/agent/endpoint"
	"postern/agent/token"
	"postern/platform"
)

// wireEndpoint builds the rooms that face the programs on this device.
func (g *graph) wireEndpoint() (err error) {
	if g.cfg.Arc.Enabled {
		g.keeper, err = challenge.New(challenge.Options{Host: g.host, Poll: g.poll, Log: g.log, Event: g.challengeEvent})
		if err != nil {
			return fmt.Errorf("token directory: %w", err)
		}
	}
	names := make([]string, 0, len(g.cfg.Workloads))
	for _, w := range g.cfg.Workloads {
		names = append(names, w.Name)
	}
	if g.workloads, err = openWorkloads(g.host, names, g.workloadSecrets); err != nil {
		return err
	}
	o := endpoint.Options{
		Tokens: g.broker, Peer: g.host.Peer, MayIMDS: g.mayIMDS, Instance: g.instance,
		Workloads: g.workloads.all(), StateDir: g.host.Dirs().State,
		Log: g.log, Audit: g.denialEvent, Served: g.served, Connections: connectionsFor(openFiles()),
	}
	if g.keeper != nil {
		o.Keeper = g.keeper
	}
	if o.Connections < allConnections {
		g.log.Warn("few open files are allowed, so fewer connections are served", "event", "open-files",
			"allowed", openFiles(), "connections", o.Connections, "fix", "raise the limit of open files to 256 (ulimit -n, LimitNOFILE=)")
	}
	g.endpoint, err = endpoint.New(o)
	return err
}

// mayIMDS is the only gate of the IMDS flavour, which has no challenge. It only
// opens the door: who may take which token is decided by the broker, by the
// same grants.
func (g *graph) mayIMDS(p platform.Peer) bool {
	if g.cfg.IMDS.Allow == "anyone" {
		return true
	}
	if p == platform.Unknown {
		return false
	}
	uid, ok := p.UID()
	return ok && uid == 0 || g.host.Member(p, g.cfg.Group) || g.grants.Load().Names(p)
}

// denialEvent keeps what the endpoint refused before the broker saw it.
func (g *graph) denialEvent(d endpoint.Denial) {
	g.audit.Record(audit.Event{
		Name: audit.Name(d.Event), Reason: d.Reason, Flavour: string(d.Flavour),
		Peer: d.Peer, Listener: d.Listener, Agent: d.Agent,
	})
}

// instance is what /metadata/instance shows.
func (g *graph) instance() endpoint.Instance {
	system, _ := g.device.System()
	name := g.cfg.Instance.Name
	if name == "" {
		name, _ = os.Hostname() // without one the field stays empty
	}
	i := instanceOf(g.cfg.Instance, system.Identity, name)
	i.Version = g.host.Kernel()
	if h, ok := g.device.Holder(system.Identity.ClientID); ok && h.Current() != nil {
		i.VMID = first(h.Current().MachineID(), i.VMID)
	}
	return i
}

// reload takes in what may change while the agent runs: the grants, and the
// roots in the files that the configuration names. A file that is not valid is
// reported, and everything stays as it was.
func (g *graph) reload() {
	if g.reread == nil {
		return
	}
	cfg, err := g.reread()
	var grants *token.Grants
	if err == nil {
		grants, err = newGrants(cfg, g.host)
	}
	if err == nil {
		err = g.upstream.reread()
	}
	if err != nil {
		g.log.Error("configuration stays as it was", "path", g.cfg.Path(), "reason", err)
		return
	}
	g.device.Redial()
	g.broker.SetGrants(grants)
	g.grants.Store(grants)
	g.log.Info("grants read again, and roots", "path", g.cfg.Path())
}

// hosts are the further names that a listener answers to.
func (g *graph) hosts(listener string) []string {
	if listener == "imds" {
		return g.cfg.IMDS.Hosts
	}
	return nil
}
