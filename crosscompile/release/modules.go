package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"postern/crosscompile"
)

// module is one module of which packages are linked into a binary. The
// standard library counts as one.
type module struct {
	path, version, sum string
	dir                string
	licences           []string
	notices            []notice
	packages           []string
	needs              []string // paths of modules that its linked packages import
}

const standard = "std"

type listed struct {
	ImportPath, Dir string
	Standard        bool
	Imports         []string
	ImportMap       map[string]string
	Module          *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// linked lists the modules that the binary for t is made of, the main module
// first, then by path, with what go list says of their packages.
func linked(ctx context.Context, root string, t crosscompile.Target) ([]*module, error) {
	packages, err := listPackages(ctx, root, t)
	if err != nil {
		return nil, err
	}
	owner, modules := map[string]*module{}, map[string]*module{}
	var main *module
	for _, p := range packages {
		m := &module{path: standard}
		if !p.Standard {
			m = &module{path: p.Module.Path, version: p.Module.Version, dir: p.Module.Dir}
		}
		if known := modules[m.path]; known != nil {
			m = known
		}
		if modules[m.path] = m; p.Module != nil && p.Module.Main {
			main = m
		}
		m.packages = append(m.packages, p.ImportPath)
		owner[p.ImportPath] = m
	}
	if main == nil || modules[standard] == nil {
		return nil, errors.New("go list names no main module or no standard library")
	}
	for _, p := range packages {
		m := owner[p.ImportPath]
		for _, imported := range p.Imports {
			to := owner[cmp.Or(p.ImportMap[imported], imported)]
			if to != nil && to != m && !slices.Contains(m.needs, to.path) {
				m.needs = append(m.needs, to.path)
			}
		}
		if err := m.readPackage(p); err != nil {
			return nil, err
		}
	}
	var list []*module
	for _, m := range modules {
		slices.Sort(m.needs)
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *module) int {
		if a == main || b == main {
			return map[bool]int{true: -1, false: 1}[a == main]
		}
		return cmp.Compare(a.path, b.path)
	})
	return list, nil
}

// readPackage takes up the licence files from the package's folder up to the
// module's: a package may be somebody else's work.
func (m *module) readPackage(p listed) error {
	if m.path == standard {
		return nil
	}
	for dir := p.Dir; ; dir = filepath.Dir(dir) {
		if err := m.readFolder(dir); err != nil {
			return err
		}
		if dir == m.dir || !strings.HasPrefix(dir, m.dir) {
			return nil
		}
	}
}

func (m *module) readFolder(dir string) error {
	ids, notices, err := readLicences(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", m.path, err)
	}
	for _, id := range ids {
		if !slices.Contains(m.licences, id) {
			m.licences = append(m.licences, id)
		}
	}
	for _, n := range notices {
		if !slices.Contains(m.notices, n) {
			m.notices = append(m.notices, n)
		}
	}
	return nil
}

// readStandard takes the toolchain's licence, which covers what the standard
// library has copied as well.
func (m *module) readStandard(ctx context.Context, root string) error {
	cmd := exec.CommandContext(ctx, "go", "env", "GOROOT")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	m.dir = strings.TrimSpace(string(out))
	return m.readFolder(m.dir)
}

func listPackages(ctx context.Context, root string, t crosscompile.Target) ([]listed, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-tags", crosscompile.Tags,
		"-json=ImportPath,Dir,Standard,Imports,ImportMap,Module", "./agent")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+t.OS, "GOARCH="+t.Arch, "GOARM="+t.ARM, "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list for %s: %w\n%s", t, err, stderr.String())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("go list for %s: %w", t, err)
		case !p.Standard && p.Module == nil:
			return nil, fmt.Errorf("go list for %s: %s belongs to no module", t, p.ImportPath)
		}
		all = append(all, p)
	}
}
