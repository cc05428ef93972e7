package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"postern/platform"
)

// markers are the files by which clients see that an Arc agent is here.
var markers = [...]string{"/opt/azcmagent/bin/himds", "/var/opt/azcmagent/bin/himds"}

// checkMarkers asks whether every client can find us, and nobody else.
func checkMarkers(_ context.Context, f *facts) finding {
	if len(f.arc()) == 0 {
		return skip("postern config print", "the Arc flavour is off")
	}
	self, err := os.Executable()
	if err != nil {
		return skip("postern version", "%v", err)
	}
	for _, path := range markers {
		target, err := filepath.EvalSymlinks(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return warn("sudo postern discovery on", "%s is missing: some clients find the endpoint by it, the others by the variables of: postern env", path)
		case err != nil:
			return warn("ls -l "+path, "%v", err)
		case !readable(target):
			return warn("ls -lL "+path, "%s cannot be read by this user", target)
		case filepath.Base(target) != filepath.Base(self) && !sameFile(target, self):
			return warn("ls -lL "+path, "%s belongs to another program: it leads to %s", path, target)
		}
	}
	return ok("%s", strings.Join(markers[:], ", "))
}

// checkEnvironment looks at the variables of whoever asks.
func checkEnvironment(_ context.Context, f *facts) finding {
	if len(f.arc()) == 0 {
		return skip("postern config print", "the Arc flavour is off")
	}
	endpoint, imds := os.Getenv("IDENTITY_ENDPOINT"), os.Getenv("IMDS_ENDPOINT")
	want := arcEnv(f.arc()[0])
	switch {
	case os.Getenv("IDENTITY_HEADER") != "":
		return warn("unset IDENTITY_HEADER", "IDENTITY_HEADER is set: clients take it for another kind of endpoint")
	case endpoint == "" && imds == "":
		return ok("not set here; a client without a marker file wants: postern env")
	case endpoint == "" || imds == "":
		return warn("eval \"$(postern env)\"", "only one of IDENTITY_ENDPOINT and IMDS_ENDPOINT is set, and clients want both")
	case endpoint != want[0].value || imds != want[1].value:
		return warn("eval \"$(postern env)\"", "IDENTITY_ENDPOINT is %s, and we answer at %s", endpoint, want[0].value)
	}
	return ok("both are ours")
}

// checkMembership asks whether the user can read a challenge, and which bit is
// missing.
func checkMembership(_ context.Context, f *facts) finding {
	if why := f.tokenDir(); why.verdict != "" {
		return why
	}
	peer, name := f.host.Self(), f.userName()
	if f.asUser != "" {
		peer, name = f.host.Account(f.asUser), f.asUser
	}
	group := f.cfg.Group
	switch {
	case f.host.Administrator(peer) && peer == platform.UIDPeer(0):
		return ok("root reads every challenge; for another user: postern check --as-user NAME")
	case !f.host.Member(peer, group):
		return bad("sudo usermod -aG "+group+" "+name+"   # then log in again, or restart its service", "%s is not a member of the group %s and cannot read challenges", name, group)
	case f.asUser == "" && !inGroups(f, group):
		return bad("newgrp "+group+"   # or log in again", "%s is a member of the group %s, but this session began before", name, group)
	}
	return ok("%s is a member of the group %s", name, group)
}

// inGroups reports whether this very process has the group, which a session
// that began before usermod has not.
func inGroups(f *facts, group string) bool {
	info, err := os.Stat(f.host.Dirs().Tokens)
	if err != nil {
		return true // another check says so
	}
	gid, known := groupOf(info)
	if !known {
		return true
	}
	ids, err := os.Getgroups()
	if err != nil || os.Getegid() == gid {
		return true
	}
	for _, id := range ids {
		if id == gid {
			return true
		}
	}
	return group == ""
}
