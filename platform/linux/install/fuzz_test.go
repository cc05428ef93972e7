//go:build linux

package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzManifest: root deletes what the manifest names. Whatever stands in it,
// no file is to go that is not what it says, the program aside. What is planned
// here is never done.
func FuzzManifest(f *testing.F) {
	dir := tree(f)
	must(f, install(options(dir, "sysvinit")))
	place := filepath.Join(dir, manifestPlaces()[0])
	good, err := os.ReadFile(place)
	must(f, err)
	f.Add(good)
	f.Add([]byte(`{"schema":"postern.manifest/1","entries":[{"part":"agent","kind":"file","path":"/etc/passwd","sums":["x"]},{"part":"agent","kind":"file","path":"/../etc/group"},{"part":"agent","kind":"directory","path":"/.."}]}`))
	f.Add([]byte(`{"schema":"postern.manifest/2"}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		must(t, os.WriteFile(place, text, 0o644))
		p, err := Remove(Options{Root: dir}, true, PartAgent, PartDiscovery)
		if err != nil {
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Fix == "" {
				t.Errorf("%v", err)
			}
			return
		}
		for _, s := range p.Steps {
			if s.Do != DoRemove || s.Kind != File || s.Path == p.manifest.Binary {
				continue
			}
			there, err := p.root.look(s.Path)
			if err == nil && there != nil && !p.manifest.has(s.Path, sum(there.content)) {
				t.Errorf("%q would go, and is not what the manifest says", s.Path)
			}
		}
	})
}

// FuzzInittab: our line comes and goes, every other line stays where it is.
func FuzzInittab(f *testing.F) {
	dir := tree(f)
	f.Add("id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n")
	f.Add("")
	f.Add("# a\r\n\n\npn:12345:respawn:/usr/bin/postern run --user postern:himds")
	f.Add(lineMark + "\n::respawn:/usr/bin/postern run --user postern:himds\n")
	const ours = "::respawn:/usr/bin/postern run --user postern:himds"
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "etc/inittab")
		must(t, os.WriteFile(path, []byte(text), 0o644))
		r := &root{dir: dir}
		others := linesBut(text)
		for _, line := range []string{ours, ours, ""} {
			if line == "" {
				must(t, r.removeLine("/etc/inittab"))
			} else {
				must(t, r.addLine("/etc/inittab", line))
			}
			raw, err := os.ReadFile(path)
			must(t, err)
			if got := linesBut(string(raw)); got != others {
				t.Errorf("%q became %q", text, raw)
			}
			if n := strings.Count("\n"+string(raw), "\n"+lineMark+"\n"+ours+"\n"); line != "" && n != 1 {
				t.Errorf("our line stands there %d times: %q", n, raw)
			}
		}
	})
}

// linesBut are the lines of a table that are not ours.
func linesBut(text string) string {
	var list []string
	marked := false
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if line == lineMark || marked && ourLine(line) {
			marked = line == lineMark
			continue
		}
		marked = false
		list = append(list, line)
	}
	return strings.TrimRight(strings.Join(list, "\n"), "\n")
}
