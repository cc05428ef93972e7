package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"postern/platform/linux/install"
)

// checkUnits asks whether the init system has the files of this version, the
// alias by which programs look for an Arc agent among them.
func checkUnits(context.Context, *facts) finding { return unitsIn("/") }

func unitsIn(root string) finding {
	m, err := install.Installed(root)
	if err != nil {
		return skip("sudo postern install --dry-run", "%v", err)
	}
	if !m.Stands() {
		return skip("sudo postern install --dry-run", "the init files, if there are any, were not written by postern install")
	}
	program, err := os.ReadFile(filepath.Join(root, m.Binary)) // whatever its version: the files are asked for
	if err != nil {
		return warn("sudo postern install", "%v", err)
	}
	p, err := install.Look(install.Options{
		Root: root, Init: m.Init, Binary: program, To: m.Binary, Parts: []string{install.PartAgent},
		Service: m.Service, Mount: m.Mounted(), UID: -1, GID: -1,
	})
	var refusal *install.Refusal
	if errors.As(err, &refusal) {
		return warn(first(refusal.Fix, "sudo postern install --dry-run"), "%v", refusal)
	}
	if err != nil {
		return skip("sudo postern install --dry-run", "%v", err)
	}
	for _, s := range p.Steps {
		if (s.Kind == install.File || s.Kind == install.Link || s.Kind == install.Line) && s.Do != install.DoUnchanged {
			return warn("sudo postern install", "%s is not what this version writes for %s", s.Path, m.Init)
		}
	}
	return ok("the files of %s are those of this version", m.Init)
}
