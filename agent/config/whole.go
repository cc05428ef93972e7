package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// check looks at what no single key shows. It runs after everything was taken
// in, so that a flag may put the file right.
func (l *loader) check(c *Config) {
	l.families(c)
	l.addresses(c)
	l.names(c)
	l.upstream(c)
}

// at reports a problem of several keys at the place of one of them.
func (l *loader) at(c *Config, id, key string, what, fix string) {
	e := Error{Key: key, Problem: what, Fix: fix}
	switch o := c.origin[id]; {
	case o.Flag != "":
		e.Flag = o.Flag
	default:
		e.Path, e.Line = l.path, o.Line
	}
	l.report(e)
}

// families refuses an Arc listener on one family alone: clients that resolve
// localhost to the other one would reach whoever takes it (firmware-notes/attack-surface.md, T8).
func (l *loader) families(c *Config) {
	if !c.Arc.Enabled {
		return
	}
	if len(c.Arc.Listen) == 0 {
		l.at(c, "arc.listen", "arc.listen", "is empty", "name both loopback addresses, or set arc.enabled = false")
		return
	}
	for _, s := range c.Arc.Listen {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			continue // refused where it was taken in
		}
		for _, host := range []string{"127.0.0.1", "::1"} {
			pair := net.JoinHostPort(host, strconv.Itoa(int(a.Port())))
			if !slices.Contains(c.Arc.Listen, pair) {
				l.at(c, "arc.listen", "arc.listen",
					fmt.Sprintf("port %d is not held on %s, where another user could take it", a.Port(), host), "add "+quote(pair))
				return
			}
		}
	}
}

// addresses refuses one address for two listeners.
func (l *loader) addresses(c *Config) {
	taken := map[string]string{}
	take := func(address, id, key string) {
		if address == "" {
			return
		}
		if by, ok := taken[address]; ok {
			l.at(c, id, key, address+" is already taken by "+by, "use another port")
			return
		}
		taken[address] = key
	}
	if c.Arc.Enabled {
		for _, a := range c.Arc.Listen {
			take(a, "arc.listen", "arc.listen")
		}
	}
	if c.IMDS.Enabled {
		for _, a := range c.IMDS.Listen {
			take(a, "imds.listen", "imds.listen")
		}
		if len(c.IMDS.Listen) == 0 {
			l.at(c, "imds.listen", "imds.listen", "is empty", "name an address, or set imds.enabled = false")
		}
	}
	for i, w := range c.Workloads {
		take(w.Listen, fmt.Sprintf("workload[%d].listen", i), "workload.listen")
	}
}

// names refuses two of a kind.
func (l *loader) names(c *Config) {
	workloads := map[string]bool{}
	for i, w := range c.Workloads {
		if w.Name != "" && workloads[w.Name] {
			l.at(c, fmt.Sprintf("workload[%d].name", i), "workload.name", quote(w.Name)+" stands there twice", "name each workload differently")
		}
		workloads[w.Name] = true
	}
	clients := map[string]bool{}
	system := false
	for i, id := range c.Identities {
		if id.ClientID != "" && clients[id.ClientID] {
			l.at(c, fmt.Sprintf("identity[%d].client_id", i), "identity.client_id", quote(id.ClientID)+" stands there twice", "list each identity once")
		}
		clients[id.ClientID] = true
		if id.Kind != "SystemAssigned" {
			continue
		}
		if system {
			l.at(c, fmt.Sprintf("identity[%d].kind", i), "identity.kind", "a second identity is SystemAssigned", "a device has one; make this one UserAssigned")
		}
		system = true
	}
}

// upstream refuses settings that no authority would accept together.
func (l *loader) upstream(c *Config) {
	t := c.Token
	if t.Preset == "entra" && t.Tenant == "" {
		l.at(c, "token.preset", "token.preset", "\"entra\" needs a tenant", "set token.tenant")
	}
	if t.Preset == "entra" && c.Key.Algorithm != "RSA-2048" {
		l.at(c, "token.preset", "token.preset", "Entra ID accepts RSA keys only", "set key.algorithm = \"RSA-2048\"")
	}
	ec := c.Key.Algorithm == "EC-P256"
	if ec && (t.Alg == "PS256" || t.Alg == "RS256") || !ec && t.Alg == "ES256" {
		l.at(c, "token.alg", "token.alg", quote(t.Alg)+" does not fit key.algorithm "+quote(c.Key.Algorithm), "set token.alg = \"auto\"")
	}
	if c.ProxyCredentialsFile != "" && c.Proxy == "" {
		l.at(c, "proxy_credentials_file", "proxy_credentials_file", "there is no proxy", "set proxy, or leave this out")
	}
}
