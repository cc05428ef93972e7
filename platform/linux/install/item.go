//go:build linux

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what an installation makes.
type Kind string

// The kinds, as they stand in the manifest and in --json.
const (
	Directory Kind = "directory"
	File      Kind = "file"
	Link      Kind = "link"
	Line      Kind = "line" // of a file that is not ours: /etc/inittab
	Account   Kind = "account"
	Command   Kind = "command"
)

// item is one thing that is to be there.
type item struct {
	part    string
	kind    Kind
	path    string
	mode    uint32
	account bool // belongs to the agent's account instead of root
	mounted bool // over it lies, once it runs, a directory of the agent's
	content []byte
	target  string
	name    string // of an account: "user postern", "group himds"
}

// Step is one line of a plan: what is done with what.
type Step struct {
	Do     string `json:"do"` // one of the Do constants
	Kind   Kind   `json:"kind"`
	Path   string `json:"path"`
	Mode   string `json:"mode,omitempty"`
	Owner  string `json:"owner,omitempty"`
	Target string `json:"target,omitempty"` // of a link
	Note   string `json:"note,omitempty"`

	item item
}

// What is done with a path.
const (
	DoMake      = "make"
	DoReplace   = "replace"
	DoGive      = "give" // a root's empty directory to the agent
	DoUnchanged = "unchanged"
	DoAside     = "keep-aside" // an edited file gets another name, and ours its place
	DoRemove    = "remove"
	DoKeep      = "keep"
	DoRun       = "run"
)

// Refusal says that an installation would touch what is not ours or not safe.
// Nothing was changed.
type Refusal struct {
	Path, Problem, Fix string
}

func (e *Refusal) Error() string { return e.Path + " " + e.Problem }

func refused(err error) *Refusal {
	var u *unsafeError
	if errors.As(err, &u) {
		return &Refusal{Path: u.path, Problem: u.problem, Fix: u.fix}
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return &Refusal{Path: p.Path, Problem: p.Err.Error(), Fix: "ls -ld " + p.Path}
	}
	return &Refusal{Path: "/", Problem: err.Error(), Fix: "postern install --help"}
}

// decide says what has to be done for it, and changes nothing.
func (p *Plan) decide(it item) (Step, *Refusal) {
	s := Step{Kind: it.kind, Path: it.path, Target: it.target, Owner: "root", item: it}
	if it.account {
		s.Owner = UserName + ":" + GroupName
	}
	if it.kind == Directory || it.kind == File {
		s.Mode = fmt.Sprintf("%04o", it.mode)
	}
	if it.kind == Account {
		return p.decideAccount(s)
	}
	there, err := p.root.look(it.path)
	if err != nil {
		return s, refused(err)
	}
	if refusal := p.hides(it); refusal != nil {
		return s, refusal
	}
	switch {
	case it.kind == Line:
		return p.decideLine(s, there)
	case there == nil:
		s.Do = DoMake
		return s, nil
	case it.kind == Directory:
		return p.decideDirectory(s, there)
	case it.kind == Link:
		return p.decideLink(s, there)
	}
	return p.decideFile(s, there)
}

// hides refuses the alias where it would take the place of another agent's
// unit: a link in /etc goes before a unit in /usr/lib.
func (p *Plan) hides(it item) *Refusal {
	if filepath.Base(it.path) != alias {
		return nil
	}
	for _, path := range []string{"/usr/lib/systemd/system/" + alias, "/lib/systemd/system/" + alias} {
		there, err := p.root.look(path)
		if err != nil {
			return refused(err)
		}
		if there != nil {
			return p.foreign(path, there, "it is another agent's, and "+it.path+" would hide it")
		}
	}
	return nil
}

func (p *Plan) decideDirectory(s Step, there *found) (Step, *Refusal) {
	if _, ours := p.ownLink(s.item); ours {
		s.Do = DoMake
		return s, nil
	}
	if there.kind() == unix.S_IFLNK && !s.item.account {
		n, err := p.root.open(s.Path) // a link of root's to a directory will do
		if err != nil {
			return s, refused(err)
		}
		n.close()
		s.Do, s.Mode = DoUnchanged, ""
		return s, nil
	}
	if there.kind() != unix.S_IFDIR {
		return s, p.foreign(s.Path, there, "want a directory")
	}
	if !s.item.account {
		o, known := p.owner()
		mounted := s.item.mounted && known && int(there.st.Uid) == o.uid
		if err := passable(s.Path, there.st); err != nil && !mounted {
			return s, refused(err)
		}
		s.Do, s.Mode = DoUnchanged, fmt.Sprintf("%04o", there.st.Mode&0o7777)
		return s, nil
	}
	return p.decideOwned(s, there)
}

// ownLink is the removal of our link to the tokens, which gives way to the
// directory on which they are mounted.
func (p *Plan) ownLink(it item) (Step, bool) {
	e, known := p.manifest.find(it.path)
	if !it.mounted || !known || e.Kind != Link {
		return Step{}, false
	}
	s, there := p.removal(e)
	return s, there && s.Do == DoRemove
}

// decideOwned looks at a directory that shall be the agent's. An empty one of
// root's, a mount point for example, is given to it; one of a stranger is
// refused: he could have prepared what is in it.
func (p *Plan) decideOwned(s Step, there *found) (Step, *Refusal) {
	o, known := p.owner()
	switch {
	case known && int(there.st.Uid) == o.uid:
		s.Do = DoUnchanged
		if there.st.Mode&0o7777 != s.item.mode || int(there.st.Gid) != o.gid {
			s.Do = DoGive
		}
	case !p.asRoot():
		s.Do = DoUnchanged // ids are left to who packs the tree
	case there.st.Uid != 0:
		who := p.root.userName(int(there.st.Uid))
		return s, &Refusal{
			Path: s.Path, Problem: "belongs to " + who + ", and the agent will run as " + UserName,
			Fix: fmt.Sprintf("sudo postern install --uid %d --gid %d   # if it is the agent's of an earlier image; else: sudo ls -la %s", there.st.Uid, there.st.Gid, s.Path),
		}
	default:
		names, err := p.root.names(s.Path)
		if err != nil {
			return s, refused(err)
		}
		if names = slices.DeleteFunc(names, func(n string) bool { return n == "lost+found" }); len(names) > 0 {
			return s, &Refusal{Path: s.Path, Problem: "is root's and holds " + names[0], Fix: "sudo ls -la " + s.Path + "   # if it is the agent's: sudo chown -R " + UserName + ":" + GroupName + " " + s.Path}
		}
		s.Do = DoGive
	}
	return s, nil
}

func (p *Plan) decideLink(s Step, there *found) (Step, *Refusal) {
	_, ours := p.manifest.find(s.Path)
	switch {
	case there.kind() == unix.S_IFDIR && ours && s.Path == tokensPath: // the agent has it in use
		return s, &Refusal{Path: s.Path, Problem: "is a mount since postern install --tokens mount", Fix: "sudo postern discovery off   # then: sudo postern discovery on --tokens link"}
	case there.kind() != unix.S_IFLNK:
		return s, p.foreign(s.Path, there, "want a link to "+s.Target)
	case there.target == s.Target:
		s.Do = DoUnchanged
	case p.manifest.has(s.Path, there.target):
		s.Do = DoReplace
	default:
		return s, p.foreign(s.Path, there, "it leads to "+there.target)
	}
	return s, nil
}

func (p *Plan) decideFile(s Step, there *found) (Step, *Refusal) {
	if there.kind() != unix.S_IFREG {
		return s, p.foreign(s.Path, there, "want a regular file")
	}
	now := sum(there.content)
	_, ours := p.manifest.find(s.Path)
	switch {
	case !trusted(there.st.Uid):
		return s, p.foreign(s.Path, there, "it is not root's")
	case now == sum(s.item.content):
		s.Do = DoUnchanged
		if there.st.Mode&0o7777 != s.item.mode {
			s.Do = DoReplace
		}
	case p.manifest.has(s.Path, now):
		s.Do = DoReplace
	case ours && s.item.binary(p):
		s.Do = DoReplace // nobody edits a binary; a stopped copy has no name
	case ours:
		aside, err := p.asideName(s.Path)
		if err != nil {
			return s, refused(err)
		}
		s.Do, s.Note = DoAside, "was edited; kept as "+aside
		s.item.target = aside
	default:
		return s, p.foreign(s.Path, there, "its content is not ours")
	}
	return s, nil
}

func (it item) binary(p *Plan) bool { return it.path == p.options.To }

// asideName is a free name for an edited file.
func (p *Plan) asideName(path string) (string, error) {
	for n := 1; ; n++ {
		name := path + ".edited"
		if n > 1 {
			name += "." + strconv.Itoa(n)
		}
		if f, err := p.root.look(name); err != nil || f == nil {
			return name, err
		}
	}
}

// foreign is the refusal of a path that somebody else made.
func (p *Plan) foreign(path string, there *found, why string) *Refusal {
	owner := p.root.userName(int(there.st.Uid))
	if pkg := p.root.packageOf(path); pkg != "" {
		owner += ", package " + pkg
	}
	return &Refusal{Path: path, Problem: fmt.Sprintf("is a %s of %s: %s", kindWord(there.kind()), owner, why), Fix: "ls -l " + p.root.outside(path) + "   # move it away, then: sudo postern install"}
}

// kindOf is how a kind looks in a tree.
func kindOf(k Kind) uint32 {
	switch k {
	case Directory:
		return unix.S_IFDIR
	case Link:
		return unix.S_IFLNK
	}
	return unix.S_IFREG
}

func kindWord(kind uint32) string {
	switch kind {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFREG:
		return "file"
	}
	return "special file"
}

// outside is path as it is seen from the system that we run on.
func (r *root) outside(path string) string { return filepath.Join(r.dir, path) }

// packageOf names the Debian or Alpine package that a path belongs to.
func (r *root) packageOf(path string) string {
	names, err := r.names("/var/lib/dpkg/info")
	if err != nil {
		return ""
	}
	for _, name := range names {
		pkg, isList := strings.CutSuffix(name, ".list")
		if !isList {
			continue
		}
		if f, err := r.look("/var/lib/dpkg/info/" + name); err == nil && f != nil && strings.Contains("\n"+string(f.content), "\n"+path+"\n") {
			return pkg
		}
	}
	return ""
}
