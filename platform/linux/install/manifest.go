//go:build linux

package install

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Manifest says what an installation made, so that uninstall takes away just
// that. It is root's, never the agent's: root deletes what it names. It is
// written before the first change.
type Manifest struct {
	Schema  string  `json:"schema"` // "postern.manifest/1"
	Init    string  `json:"init,omitempty"`
	Binary  string  `json:"binary,omitempty"`
	Service string  `json:"service,omitempty"` // directory that runit or s6 watches
	Entries []Entry `json:"entries"`
}

// Entry is one thing that we made.
type Entry struct {
	Part string `json:"part"` // PartAgent or PartDiscovery
	Kind Kind   `json:"kind"`
	Path string `json:"path"`
	// Sums are the SHA-256 of the contents that we may have written: one, or,
	// while an installation is under way, the old and the new. For a link its
	// targets stand here.
	Sums []string `json:"sums,omitempty"`
}

// The parts of an installation, which go on and off by themselves.
const (
	PartAgent     = "agent"
	PartDiscovery = "discovery"
)

const manifestSchema = "postern.manifest/1"

// manifestPlaces are where the manifest may lie; the second is for a /usr that
// cannot be written.
func manifestPlaces() []string {
	return []string{"/usr/lib/postern/manifest.json", "/etc/postern/manifest.json"}
}

// readManifest returns what was installed and where that stands; an empty one
// if nothing was.
func (r *root) readManifest() (Manifest, string, error) {
	for _, path := range manifestPlaces() {
		f, err := r.look(path)
		if err != nil {
			return Manifest{}, "", err
		}
		if f == nil {
			continue
		}
		if f.kind() != unix.S_IFREG || !trusted(f.st.Uid) || f.st.Mode&0o022 != 0 {
			return Manifest{}, "", &unsafeError{path: path, problem: "is not a file that only root can write", fix: "ls -l " + path}
		}
		var m Manifest
		if err := json.Unmarshal(f.content, &m); err != nil || m.Schema != manifestSchema {
			return Manifest{}, "", &unsafeError{path: path, problem: "cannot be read as " + manifestSchema, fix: "sudo rm " + path + "   # then: sudo postern install"}
		}
		return m, path, nil
	}
	return Manifest{Schema: manifestSchema}, "", nil
}

func (m Manifest) encode() ([]byte, error) {
	m.Schema = manifestSchema
	if m.Entries == nil {
		m.Entries = []Entry{}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return append(text, '\n'), nil
}

func (m Manifest) find(path string) (Entry, bool) {
	i := slices.IndexFunc(m.Entries, func(e Entry) bool { return e.Path == path })
	if i < 0 {
		return Entry{}, false
	}
	return m.Entries[i], true
}

// Stands reports whether the agent is installed: an uninstall that keeps the
// state keeps the manifest, too.
func (m Manifest) Stands() bool {
	return slices.ContainsFunc(m.Entries, func(e Entry) bool { return e.Kind == File && e.Path == m.Binary })
}

// Mounted reports whether a tmpfs lies on the token directory instead of a link.
func (m Manifest) Mounted() bool {
	return slices.ContainsFunc(m.Entries, func(e Entry) bool { return e.Kind == File && filepath.Base(e.Path) == mountUnit })
}

// has reports whether content is what we once wrote to path.
func (m Manifest) has(path, content string) bool {
	e, ok := m.find(path)
	return ok && slices.Contains(e.Sums, content)
}

func sum(content []byte) string {
	s := sha256.Sum256(content)
	return hex.EncodeToString(s[:])
}

// parents are the directories above path, the topmost first.
func parents(path string) []string {
	var list []string
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		list = append(list, dir)
	}
	slices.Reverse(list)
	return list
}
