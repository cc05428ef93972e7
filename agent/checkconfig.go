package main

import (
	"context"
	"errors"
	"os"

	"postern/agent/control"
)

func configChecks() []check {
	return []check{
		{"config-valid", "install", failed, checkConfigValid},
		{"config-owner", "install", failed, checkConfigOwner},
	}
}

func checkConfigValid(_ context.Context, f *facts) finding {
	var open *openConfigError
	if f.configErr == nil || errors.As(f.configErr, &open) {
		return ok("%s", orWord(f.cfg.Path(), "no configuration file: the defaults"))
	}
	fault := control.AsFault(f.configErr)
	return bad(first(fault.Fix, "postern config check"), "%s", fault.Message).because(control.CauseChain(f.configErr))
}

// checkConfigOwner asks who else could have written the configuration: it
// says who may have which token.
func checkConfigOwner(_ context.Context, f *facts) finding {
	path := f.cfg.Path()
	var open *openConfigError
	if errors.As(f.configErr, &open) {
		return bad("sudo chmod go-w "+open.path, "%s", open)
	}
	if path == "" {
		return ok("no configuration file")
	}
	info, err := os.Stat(path)
	if err != nil {
		return bad("ls -l "+path, "%v", err)
	}
	if owner, known := ownerOf(info); known && owner != 0 && owner != os.Getuid() {
		return bad("sudo chown root "+path, "%s belongs to uid %d, want root", path, owner)
	}
	return ok("%s can be written by its owner alone", path)
}
