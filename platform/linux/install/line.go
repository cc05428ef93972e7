//go:build linux

package install

import (
	"errors"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lineMark stands above our line in a file that is not ours.
const lineMark = "# postern: written by postern install, taken away by postern uninstall"

func (r *root) parent(path string) (node, string, error) {
	n, err := r.open(filepath.Dir(path))
	return n, filepath.Base(path), err
}

// decideLine looks for our line in a file of the system. The file itself must
// be there: without it busybox init starts what it likes, and with a new one
// only what we would write.
func (p *Plan) decideLine(s Step, there *found) (Step, *Refusal) {
	if there == nil {
		return s, &Refusal{
			Path: p.root.outside(s.Path), Problem: "does not exist, and init would start nothing else than what postern wrote there",
			Fix: "busybox init --help   # write " + p.root.outside(s.Path) + " first, then: sudo postern install",
		}
	}
	if there.kind() != unix.S_IFREG || !trusted(there.st.Uid) {
		return s, p.foreign(s.Path, there, "want a file of root's")
	}
	s.Note = strings.TrimSpace(string(s.item.content))
	s.Do = DoMake
	for _, line := range strings.Split(string(there.content), "\n") {
		switch line {
		case s.Note:
			s.Do = DoUnchanged
		case lineMark:
			s.Do = DoReplace
		}
		if s.Do == DoUnchanged {
			return s, nil
		}
	}
	return s, nil
}

// addLine puts our line at the end, under its mark, in place of an older one.
func (r *root) addLine(path, line string) error {
	return r.changeLine(path, strings.TrimSpace(line))
}

func (r *root) removeLine(path string) error { return r.changeLine(path, "") }

// ourLine reports whether a line under the mark is one that we wrote, of this
// release or another: who took it away by hand may have left the mark.
func ourLine(line string) bool {
	return strings.Contains(line, ":respawn:") && strings.Contains(line, " run --user "+UserName)
}

func (r *root) changeLine(path, line string) error {
	t, err := r.table(path)
	if err != nil {
		return err
	}
	if t.there == nil {
		if line == "" {
			return nil
		}
		return errors.New(path + " is gone")
	}
	var text strings.Builder
	skip := false
	for _, l := range t.lines {
		marked := skip
		skip = l == lineMark
		if skip || marked && ourLine(l) {
			continue
		}
		text.WriteString(l + "\n")
	}
	if line != "" {
		text.WriteString(lineMark + "\n" + line + "\n")
	}
	if text.String() == string(t.there.content) {
		return nil
	}
	return r.rewrite(t, text.String())
}
