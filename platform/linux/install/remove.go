//go:build linux

package install

import (
	"fmt"
	"path/filepath"
	"slices"
)

// Remove plans to take parts of an installation away: only what the manifest
// names, and only as we left it. Accounts are kept; the state directory is,
// too, unless purge.
func Remove(o Options, purge bool, parts ...string) (*Plan, error) {
	p := &Plan{options: Options{Root: o.Root}, root: &root{dir: filepath.Clean(o.Root), before: o.Before}, purge: purge}
	var err error
	if p.manifest, p.place, err = p.root.readManifest(); err != nil {
		return nil, refused(err)
	}
	for _, e := range slices.Backward(p.manifest.Entries) {
		if !slices.Contains(parts, e.Part) || e.Path == filepath.Dir(p.place) {
			continue
		}
		s, there := p.removal(e)
		switch {
		case !there:
			continue
		case e.Kind == Account && !purge:
			s.Do, s.Note = DoKeep, "what the agent left belongs to it; --purge removes it"
		case e.Path == stateDir && !purge:
			s.Do, s.Note = DoKeep, "the identity stays; --purge removes it"
		}
		s.item.name = e.Path
		p.Steps = append(p.Steps, s)
	}
	return p, nil
}

const stateDir = "/var/lib/postern"

// Installed returns what the manifest of the tree says.
func Installed(dir string) (Manifest, error) {
	r := &root{dir: filepath.Clean(dir)}
	m, _, err := r.readManifest()
	if err != nil {
		return m, refused(err)
	}
	return m, nil
}

// Take does what Remove planned.
func (p *Plan) Take(account func(name string) error, tell func(Step)) error {
	for _, s := range p.Steps {
		if s.Do != DoRemove {
			tell(s)
			continue
		}
		if err := p.take(s, account); err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
		if s.Kind == Directory && p.root.there(s.Path) {
			s.Do, s.Note = DoKeep, "is not empty"
		}
		tell(s)
	}
	return p.forget()
}

// TakeLines removes the lines in files of the system alone, so that init can
// forget the agent before its program goes.
func (p *Plan) TakeLines(tell func(Step)) error {
	for _, s := range p.Steps {
		if s.Do != DoRemove || s.Kind != Line {
			continue
		}
		if err := p.undo(s); err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
		tell(s)
	}
	return nil
}

func (p *Plan) take(s Step, account func(name string) error) error {
	if s.Kind == Account {
		if account != nil {
			if !p.root.hasAccount(s.item.name) {
				return nil // a run was stopped behind it, or somebody was faster
			}
			return account(s.item.name)
		}
		return p.removeAccount(s.item.name)
	}
	return p.undo(s)
}

// undo removes one thing, and what a stopped run left of it.
func (p *Plan) undo(s Step) error {
	if temp := temporaryPath(s.Path); p.root.there(temp) {
		if err := p.root.remove(temp, s.Kind == Directory); err != nil {
			return err
		}
	}
	switch s.Kind {
	case Line:
		return p.root.removeLine(s.Path)
	case Directory:
		if s.Path == stateDir {
			if err := p.root.destroy(stateDir); err != nil {
				return err
			}
		}
		if s.Path == stateDir || s.Path == runtimeDir {
			if err := p.root.empty(s.Path); err != nil {
				return err
			}
		}
		return p.root.remove(s.Path, true)
	}
	return p.root.remove(s.Path, false)
}

// removeAccount takes the lines out of the files of the tree.
func (p *Plan) removeAccount(name string) error {
	unlock, err := p.root.lockAccounts()
	if err != nil {
		return err
	}
	defer unlock()
	files := []string{"/etc/passwd", "/etc/shadow"}
	if name == GroupName {
		files = []string{"/etc/group", "/etc/gshadow"}
	}
	for _, path := range files {
		if err := p.root.removeName(path, name); err != nil {
			return err
		}
	}
	return nil
}

// forget leaves in the manifest what was kept, and directories in which
// something is left, or removes it with its directory.
func (p *Plan) forget() error {
	if p.place == "" {
		return p.forgetPlace(filepath.Dir(manifestPlaces()[0]))
	}
	next := p.manifest
	next.Entries = slices.DeleteFunc(slices.Clone(p.manifest.Entries), func(e Entry) bool {
		i := slices.IndexFunc(p.Steps, func(s Step) bool { return s.item.key() == e.Path && s.Kind == e.Kind })
		if i >= 0 && e.Kind != Directory {
			return p.Steps[i].Do == DoRemove
		}
		return p.gone(e)
	})
	if !p.purge && slices.ContainsFunc(next.Entries, func(e Entry) bool { return e.Kind != Directory || e.Path == stateDir }) {
		return p.save(next)
	}
	if err := p.root.remove(p.place, false); err != nil {
		return err
	}
	for _, e := range slices.Backward(next.Entries) {
		if e.Kind != Directory {
			continue // edited, or another's now: it stays
		}
		if err := p.root.remove(e.Path, true); err != nil {
			return err
		}
	}
	return p.forgetPlace(filepath.Dir(p.place))
}

// forgetPlace removes the directory of the manifest, if it is empty.
func (p *Plan) forgetPlace(dir string) error {
	if temp := temporaryPath(dir); p.root.there(temp) {
		if err := p.root.remove(temp, true); err != nil {
			return err
		}
	}
	if !p.root.isDirectory(dir) {
		return nil
	}
	if temp := temporaryPath(dir + "/manifest.json"); p.root.there(temp) {
		if err := p.root.remove(temp, false); err != nil {
			return err
		}
	}
	return p.root.remove(dir, true)
}

// gone reports whether nothing stands where e was made.
func (p *Plan) gone(e Entry) bool {
	if e.Kind == Account {
		return false
	}
	there, err := p.root.look(e.Path)
	return err == nil && there == nil
}
