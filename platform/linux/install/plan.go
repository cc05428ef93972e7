//go:build linux

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Options say what is installed and where.
type Options struct {
	Root     string   // the tree, "/" for this system
	Init     string   // one of Inits
	Binary   []byte   // the program
	To       string   // where the program goes, "/usr/bin/postern"
	Parts    []string // PartAgent, PartDiscovery, or both
	Mount    bool     // a tmpfs on the token directory instead of a link
	Arc      string   // host and port of the endpoint, "localhost:40342"
	Service  string   // directory that runit or s6 watches; empty: the usual one
	UID, GID int      // pinned numbers of a new account; -1: free ones

	// Before is called ahead of each change; an error ends the run there. For
	// tests.
	Before func(op, path string) error
}

// Plan is what an installation would do. It is made by looking only.
type Plan struct {
	Steps []Step

	options  Options
	root     *root
	manifest Manifest
	place    string // of the manifest
	etc      bool   // /usr cannot be written
	purge    bool   // nothing is to be remembered
}

// New looks at the tree and says what is to be done, or what is in the way:
// then the error is a *Refusal, or several joined.
func New(o Options) (*Plan, error) {
	p, err := Look(o)
	if p == nil {
		return nil, err
	}
	return p, errors.Join(err, p.writable())
}

// Look is New for who only wants to know: a tree that cannot be written is
// looked at as well.
func Look(o Options) (*Plan, error) {
	p := &Plan{options: o, root: &root{dir: filepath.Clean(o.Root), before: o.Before}}
	if err := p.plainPaths(); err != nil {
		return nil, err
	}
	var err error
	if p.manifest, p.place, err = p.root.readManifest(); err != nil {
		return nil, refused(err)
	}
	// what an image was made with is looked for where it is, also when /usr is
	// read-only by now
	if p.etc = p.place == manifestPlaces()[1]; p.place == "" {
		p.etc, p.place = p.root.readOnly("/usr/lib"), manifestPlaces()[0]
		if p.etc {
			p.place = manifestPlaces()[1]
		}
	}
	items, err := p.items()
	if err != nil {
		return nil, err
	}
	return p, p.decideAll(items)
}

// writable refuses a plan that would end at a file system that cannot be
// written: there it is the image that has to be changed.
func (p *Plan) writable() error {
	switch {
	case p.touches(p.options.To) && p.root.readOnly(p.options.To):
		return &Refusal{
			Path: p.options.To, Problem: "is on a file system that cannot be written",
			Fix: "sudo postern install --to /usr/local/bin/postern   # or another place that can be written, or put it into the image",
		}
	case p.Changes() && p.root.readOnly(p.place):
		return &Refusal{
			Path: p.place, Problem: "is on a file system that cannot be written, and has to say what is changed",
			Fix: "postern install --help   # --root TREE changes the image instead",
		}
	}
	return nil
}

// plainPaths refuses paths that scripts, units and an inittab, in which they
// stand without quotes, would read as something else.
func (p *Plan) plainPaths() error {
	for _, c := range []struct{ path, what, fix string }{
		{p.options.To, "the program", "sudo postern install --to /usr/local/bin/postern"},
		{p.options.Service, "the service directory", "sudo postern install --service-dir /etc/service"},
	} {
		if c.path == "" || !p.has(PartAgent) {
			continue
		}
		odd := func(r rune) bool {
			return !strings.ContainsRune("/._+-", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}
		if c.path == "/" || !filepath.IsAbs(c.path) || filepath.Clean(c.path) != c.path || strings.ContainsFunc(c.path, odd) {
			return &Refusal{Path: strconv.Quote(c.path), Problem: "cannot be the path of " + c.what + ": it starts with / and has letters, digits and . _ + - only", Fix: c.fix}
		}
	}
	return nil
}

func (p *Plan) has(part string) bool { return slices.Contains(p.options.Parts, part) }

// Service is the directory that runit or s6 watches, as it was chosen.
func (p *Plan) Service() string { return p.options.Service }

// asRoot reports whether owners can be given.
func (p *Plan) asRoot() bool { return asRoot() }

func asRoot() bool { return os.Geteuid() == 0 }

// decideAll decides each item, and the directories above it first.
func (p *Plan) decideAll(items []item) error {
	var refusals []error
	seen := map[string]bool{}
	add := func(it item) {
		key := string(it.kind) + it.path + it.name
		if seen[key] {
			return
		}
		seen[key] = true
		s, refusal := p.decide(it)
		if refusal == nil {
			if link, there := p.ownLink(it); there {
				p.Steps = append(p.Steps, link)
			}
			p.Steps = append(p.Steps, s)
			return
		}
		if !slices.ContainsFunc(refusals, func(err error) bool { return err.Error() == refusal.Error() }) {
			refusals = append(refusals, refusal)
		}
	}
	for _, it := range items {
		if it.path != "" {
			for _, dir := range parents(it.path) {
				if !seen[string(Directory)+dir] && !p.root.isDirectory(dir) {
					add(item{part: it.part, kind: Directory, path: dir, mode: 0o755})
				}
			}
		}
		add(it)
	}
	p.obsolete(items)
	return errors.Join(refusals...)
}

// isDirectory reports whether path can be gone through as it is. What cannot
// is decided, and refused, as an item of its own.
func (r *root) isDirectory(path string) bool {
	n, err := r.open(path)
	if err != nil {
		return false
	}
	n.close()
	return true
}

// obsolete adds the removal of what an earlier installation made and this one
// does not want: another init system, another place of the binary.
func (p *Plan) obsolete(items []item) {
	for _, e := range slices.Backward(p.manifest.Entries) {
		wanted := slices.ContainsFunc(items, func(it item) bool { return it.path == e.Path && it.kind == e.Kind }) ||
			slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Path == e.Path && s.Kind == e.Kind })
		if wanted || e.Kind == Account || e.Kind == Directory || !p.has(e.Part) {
			continue
		}
		if s, there := p.removal(e); there {
			p.Steps = append(p.Steps, s)
		}
	}
}

// removal says what uninstalling e does; false if it is gone already.
func (p *Plan) removal(e Entry) (Step, bool) {
	s := Step{Do: DoRemove, Kind: e.Kind, Path: e.Path, item: item{part: e.Part, kind: e.Kind, path: e.Path}}
	if e.Kind == Account {
		return s, true
	}
	there, err := p.root.look(e.Path)
	switch {
	case err != nil:
		s.Do, s.Note = DoKeep, err.Error()
	case there == nil: // but for what a stopped run left
		return s, p.root.there(temporaryPath(e.Path))
	case e.Kind == Line:
		if len(e.Sums) == 1 {
			s.item.content = []byte(e.Sums[0])
		}
	case kindOf(e.Kind) != there.kind():
		s.Do, s.Note = DoKeep, "is a "+kindWord(there.kind())+" now"
	case e.Kind == Link && !p.manifest.has(e.Path, there.target):
		s.Do, s.Note = DoKeep, "leads elsewhere now, to "+there.target
	case e.Kind == File && e.Path != p.manifest.Binary && !p.manifest.has(e.Path, sum(there.content)):
		s.Do, s.Note = DoKeep, "was edited"
	}
	return s, true
}

// Changes reports whether anything is left to do.
func (p *Plan) Changes() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Do != DoUnchanged && s.Do != DoKeep })
}

// Apply does what the plan says; tell hears of each step that is done. What
// stops it halfway is completed by a second run.
func (p *Plan) Apply(account func(name string) error, tell func(Step)) error {
	if err := p.intend(); err != nil {
		return err
	}
	for _, s := range p.Steps {
		if err := p.do(s, account); err != nil {
			return fmt.Errorf("install: %w", err)
		}
		tell(s)
	}
	return p.settle()
}

func (p *Plan) do(s Step, account func(name string) error) error {
	it := s.item
	o := owner{-1, -1}
	if asRoot() {
		o = owner{0, 0}
		if it.account {
			var known bool
			if o, known = p.owner(); !known {
				return fmt.Errorf("the account %s:%s is not in %s", UserName, GroupName, p.root.outside("/etc/passwd"))
			}
		}
	}
	switch s.Do {
	case DoUnchanged, DoKeep:
		return nil
	case DoRemove:
		return p.undo(s)
	case DoGive:
		return p.root.give(it.path, it.mode, o)
	case DoAside:
		if err := p.root.aside(it.path, it.target); err != nil {
			return err
		}
	}
	switch it.kind {
	case Account:
		if account != nil {
			return account(it.name)
		}
		return p.addAccount(it.name)
	case Directory:
		return p.root.mkdir(it.path, it.mode, o)
	case Link:
		return p.root.link(it.path, it.target)
	case Line:
		return p.root.addLine(it.path, string(it.content))
	}
	return p.root.write(it.path, it.content, it.mode, o)
}

// aside gives an edited file another name. It loses its right to be run, so
// that no init system takes it for a second service.
func (r *root) aside(path, name string) error {
	f, err := r.look(path)
	if err != nil || f == nil {
		return err
	}
	o := owner{int(f.st.Uid), int(f.st.Gid)}
	if !asRoot() {
		o = owner{-1, -1}
	}
	return r.write(name, f.content, f.st.Mode&0o666, o)
}

// intend writes down what is about to be made, beside what was.
func (p *Plan) intend() error {
	next := p.manifest
	if p.has(PartAgent) {
		next.Init, next.Binary, next.Service = p.options.Init, p.options.To, p.options.Service
	}
	next.Entries = slices.Clone(p.manifest.Entries)
	for _, s := range p.Steps {
		if s.Do != DoUnchanged && s.Do != DoKeep && s.Do != DoRemove && s.Path != filepath.Dir(p.place) {
			next.note(s.item, false)
		}
	}
	return p.save(next)
}

// note adds the item, or its new content to the one that is known.
func (m *Manifest) note(it item, only bool) {
	e := Entry{Part: it.part, Kind: it.kind, Path: it.path}
	switch it.kind {
	case File:
		e.Sums = []string{sum(it.content)}
	case Link:
		e.Sums = []string{it.target}
	case Line:
		e.Sums = []string{string(it.content)}
	case Account:
		e.Path = it.name
	}
	i := slices.IndexFunc(m.Entries, func(old Entry) bool { return old.Path == e.Path && old.Kind == e.Kind })
	if i < 0 {
		m.Entries = append(m.Entries, e)
		return
	}
	if !only {
		for _, old := range m.Entries[i].Sums {
			if !slices.Contains(e.Sums, old) {
				e.Sums = append(e.Sums, old)
			}
		}
	}
	m.Entries[i] = e
}

// settle leaves in the manifest what is there.
func (p *Plan) settle() error {
	next := p.manifest
	next.Entries = slices.Clone(p.manifest.Entries)
	for _, s := range p.Steps {
		i := slices.IndexFunc(next.Entries, func(e Entry) bool { return e.Path == s.item.key() && e.Kind == s.Kind })
		switch {
		case s.Do == DoRemove && i >= 0:
			next.Entries = slices.Delete(next.Entries, i, i+1)
		case i >= 0 && s.Do != DoKeep:
			next.note(s.item, true)
		}
	}
	next.Entries = slices.DeleteFunc(next.Entries, p.gone) // by a run that was stopped
	return p.save(next)
}

func (it item) key() string {
	if it.kind == Account {
		return it.name
	}
	return it.path
}

// save writes the manifest if it says something new.
func (p *Plan) save(m Manifest) error {
	text, err := m.encode()
	if err != nil {
		return err
	}
	there, err := p.root.look(p.place)
	if err != nil {
		return err
	}
	p.manifest = m
	if there != nil && string(there.content) == string(text) {
		return nil
	}
	for _, dir := range parents(p.place) {
		if !p.root.isDirectory(dir) {
			if err := p.root.mkdir(dir, 0o755, rootOwner()); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return p.root.write(p.place, text, 0o644, rootOwner())
}

func rootOwner() owner {
	if asRoot() {
		return owner{0, 0}
	}
	return owner{-1, -1}
}
