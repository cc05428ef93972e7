package config_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"postern/agent/config"
)

// Whatever stands in the file: no panic; every problem has a line of the file
// and is one printable line; what is accepted listens nowhere that the network
// could reach and says the same when it is printed and read again.
func FuzzParse(f *testing.F) {
	f.Add(everything)
	f.Add("")
	f.Add("imds = { enabled = true, listen = [\"127.0.0.1:80\"] }\ngrant = [{ who = \"uid:1\", identity = \"system\", resources = [\"*\"] }]")
	for _, row := range badFiles {
		f.Add(row.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := load(text)
		if err != nil {
			problemsArePlaced(t, text, err)
			return
		}
		listensLocally(t, c)
		out := printed(t, c, false)
		again, err := load(out)
		if err != nil {
			t.Fatalf("what was printed is refused: %v\n%s", err, out)
		}
		if !same(c, again) {
			t.Fatalf("what was printed says something else:\n%s\n%s", out, printed(t, again, false))
		}
		for _, v := range c.Values() {
			if v.Origin == (config.Origin{}) {
				continue
			}
			if v.Origin.Line < 1 || v.Origin.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("%s comes from line %d", v.Key, v.Origin.Line)
			}
		}
	})
}

func problemsArePlaced(t *testing.T, text string, err error) {
	t.Helper()
	var problems config.Problems
	if !errors.As(err, &problems) || len(problems) == 0 {
		t.Fatalf("%T: %v", err, err)
	}
	for _, p := range problems {
		if len(text) <= config.MaxSize && (p.Line < 1 || p.Line > strings.Count(text, "\n")+1) {
			t.Fatalf("line %d: %v", p.Line, p)
		}
		for _, r := range p.Error() {
			if !unicode.IsGraphic(r) {
				t.Fatalf("%q has %U", p.Error(), r)
			}
		}
		if len(p.Error()) > 1000 {
			t.Fatalf("%d bytes: %v", len(p.Error()), p)
		}
	}
}

func listensLocally(t *testing.T, c config.Config) {
	t.Helper()
	check := func(s string, ok func(netip.Addr) bool) {
		a, err := netip.ParseAddrPort(s)
		if err != nil || a.Port() == 0 || a.Addr().IsUnspecified() || !ok(a.Addr()) {
			t.Fatalf("listens on %q", s)
		}
	}
	for _, s := range c.Arc.Listen {
		check(s, netip.Addr.IsLoopback)
	}
	for _, s := range c.IMDS.Listen {
		check(s, func(a netip.Addr) bool { return a.IsLoopback() || a.String() == "169.254.169.254" })
	}
	for _, w := range c.Workloads {
		check(w.Listen, func(a netip.Addr) bool { return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() })
	}
}
