package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"postern/agent/control"
	"postern/platform"
)

func systemChecks() []check {
	return []check{
		{"state-dir-owner", "install", failed, checkStateOwner},
		{"state-dir-access", "install", failed, checkStateAccess},
		{"key-file-access", "install", failed, checkKeyFile},
		{"state-dir-persistent", "install", warning, checkPersistent},
		{"token-dir-access", "install", failed, checkTokenAccess},
		{"token-dir-path", "install", failed, checkTokenPath},
		{"marker-files", "install", warning, checkMarkers},
		{"env-vars", "install", warning, checkEnvironment},
		{"group-membership", "install", failed, checkMembership},
		{"unit-current", "install", warning, checkUnits},
	}
}

// checkStateOwner asks whether the state belongs to who runs the agent: ids
// that moved between images orphan it.
func checkStateOwner(_ context.Context, f *facts) finding {
	dir := f.host.Dirs().State
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return skip("sudo postern connect --claim-file CLAIM", "%s does not exist yet", dir)
	}
	if err != nil {
		return bad("ls -ld "+dir, "%v", err)
	}
	owner, _ := ownerOf(info)
	account, _, _ := strings.Cut(f.cfg.User, ":")
	want, known := f.host.Account(account).UID()
	if !known {
		return ok("%s belongs to uid %d", dir, owner)
	}
	if int(want) != owner {
		return bad("sudo chown -R "+f.cfg.User+" "+dir, "%s belongs to uid %d, and %s is uid %d", dir, owner, account, want)
	}
	return ok("%s belongs to %s", dir, account)
}

func checkStateAccess(_ context.Context, f *facts) finding {
	dir := f.host.Dirs().State
	return asOwner(dir, func() finding { return f.access(dir, platform.Private, "sudo "+only("state-dir-access")) })
}

func checkKeyFile(_ context.Context, f *facts) finding {
	dir := f.host.Dirs().State
	now := asOwner(dir, func() finding {
		for _, name := range append([]string{"cache.db"}, keyFiles...) {
			path := filepath.Join(dir, name)
			found := f.access(path, platform.Private, "sudo "+only("key-file-access"))
			if found.verdict != passed && !missingFile(path) {
				return found
			}
		}
		return f.access(dir, platform.Private, "sudo "+only("key-file-access"))
	})
	if now.verdict == failed {
		return now // to be put right before there are new keys
	}
	for _, id := range f.status.Identities {
		if id.Exposed != "" {
			return bad("sudo postern reconnect --claim-file CLAIM", "others could read the keys: %s", id.Exposed)
		}
	}
	return now
}

// access turns the platform's judgement into words.
func (f *facts) access(path string, a platform.Access, again string) finding {
	err := f.host.Check(path, a)
	var access *platform.AccessError
	switch {
	case err == nil:
		return ok("%s is %s", path, a)
	case errors.As(err, &access):
		text := access.Error()
		if access.Readers != "" {
			text += "; readable by " + access.Readers
		}
		return bad(first(sudo(access.Fix), "ls -ld "+path), "%s", text)
	case errors.Is(err, platform.ErrNoGroup):
		return bad("sudo groupadd --system "+f.cfg.Group, "the group %s, whose members may read challenges, does not exist", f.cfg.Group)
	case errors.Is(err, fs.ErrNotExist):
		return skip(startAgent, "%s does not exist yet", path)
	case errors.Is(err, fs.ErrPermission):
		return skip(again, "only root or the agent's account may look at %s", path)
	}
	return bad("ls -ld "+path, "%v", err).because(control.CauseChain(err))
}

func sudo(command string) string {
	if command == "" {
		return ""
	}
	return "sudo sh -c '" + command + "'"
}

// checkPersistent finds state that a reboot or an update takes away.
func checkPersistent(_ context.Context, f *facts) finding {
	dir := f.host.Dirs().State
	system, err := f.host.FileSystem(dir)
	if err != nil {
		return warn("ls -ld "+dir, "%v", err)
	}
	if system.Volatile {
		return warn("findmnt -T "+dir, "%s is on %s: what is there may be gone after a reboot", dir, system.Type)
	}
	line, _ := os.ReadFile("/proc/cmdline") // without it there are no slots to find
	for _, word := range []string{"rauc.slot=", "slot_suffix=", "mender.", "swupdate"} {
		if strings.Contains(string(line), word) && sameDevice(dir, "/") {
			return warn("findmnt -T "+dir, "%s is on the root file system, of which this device has two", dir)
		}
	}
	return ok("%s, which stays", system.Type)
}

func sameDevice(a, b string) bool {
	var x, y syscall.Stat_t
	return syscall.Stat(a, &x) == nil && syscall.Stat(b, &y) == nil && x.Dev == y.Dev
}

// tokenDir is skipped where no challenge is made.
func (f *facts) tokenDir() finding {
	switch {
	case len(f.arc()) == 0:
		return skip("postern config print", "the Arc flavour is off")
	case f.running && f.status.Mode == "dev":
		return skip("postern status", "a trial makes its own")
	case !f.running && missingFile(f.host.Dirs().Tokens):
		return skip(startAgent, "%s is made when the agent starts", f.host.Dirs().Tokens)
	}
	return finding{}
}

func checkTokenAccess(_ context.Context, f *facts) finding {
	if why := f.tokenDir(); why.verdict != "" {
		return why
	}
	dirs := f.host.Dirs()
	return asOwner(dirs.State, func() finding { return f.access(dirs.Tokens, platform.TokenReaders, "sudo "+only("token-dir-access")) })
}

// checkTokenPath follows the path that clients compare byte for byte.
func checkTokenPath(_ context.Context, f *facts) finding {
	if why := f.tokenDir(); why.verdict != "" {
		return why
	}
	dirs := f.host.Dirs()
	link := fmt.Sprintf("sudo ln -sfn %s %s", dirs.Tokens, dirs.TokensLiteral)
	there, err := os.Stat(dirs.TokensLiteral)
	if errors.Is(err, fs.ErrPermission) {
		return skip("sudo "+only("token-dir-path"), "only root may look at %s", dirs.TokensLiteral)
	}
	if err != nil {
		return bad(link, "%v: clients look for challenges there", err)
	}
	ours, err := os.Stat(dirs.Tokens)
	if err != nil || !os.SameFile(there, ours) {
		return bad(link, "%s does not lead to %s", dirs.TokensLiteral, dirs.Tokens)
	}
	if dirs.TokensLiteral != defaultHost.TokensLiteral {
		return warn("postern config print   # leave tokens_dir out", "challenges name %s, but Azure's clients accept only %s", dirs.TokensLiteral, defaultHost.TokensLiteral)
	}
	if system, err := f.host.FileSystem(dirs.Tokens); err == nil && system.Type != "tmpfs" {
		return warn("findmnt -T "+dirs.Tokens, "%s is on %s: each challenge costs a write; a tmpfs costs none", dirs.Tokens, system.Type)
	}
	return ok("%s leads to %s", dirs.TokensLiteral, dirs.Tokens)
}
