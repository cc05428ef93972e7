package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"postern/agent/control"
	"postern/store"
)

func storeChecks() []check {
	return []check{
		{"store-verify", "store", failed, checkStoreVerify},
		{"store-size", "store", warning, checkStoreSize},
		{"flash-wear", "store", warning, checkFlashWear},
		{"filesystem", "store", failed, checkFileSystem},
	}
}

// Budgets of the store: the cache is rebuilt at 16 MB, and a day of ordinary
// work writes a few MB.
const (
	wantedBytes = 12 << 20
	wantedDaily = 16 << 20
)

// checkStoreVerify reads the databases in a process of their own. While the
// agent has them open it has checked them itself.
func checkStoreVerify(ctx context.Context, f *facts) finding {
	if f.running {
		if s := f.status.Store; s.Problem != "" || s.Identity == "damaged" {
			return bad(first(f.status.Fix, "postern status"), "%s", first(s.Problem, f.status.Problem))
		}
		return ok("checked by the agent, which has them open")
	}
	var sound []string
	for _, name := range []string{"identity.db", "cache.db"} {
		path := filepath.Join(f.host.Dirs().State, name)
		if missingFile(path) {
			continue
		}
		err := verifyChild(ctx, path)
		switch {
		case err == nil:
			sound = append(sound, name)
		case errors.Is(err, fs.ErrPermission) || !readable(path):
			return skip("sudo "+only("store-verify"), "only root or the agent's account may read %s", path)
		case errors.Is(err, store.ErrLocked):
			return skip("postern status", "%v", err)
		case cutShort(ctx, err):
			return skip("sudo "+only("store-verify"), "%v", err)
		case name == "cache.db":
			return warn("sudo postern reset --cache", "%v; it is rebuilt by itself", err)
		default:
			return bad("sudo postern reconnect --claim-file CLAIM", "%v", err).because(control.CauseChain(err))
		}
	}
	return ok("%s", orWord(strings.Join(sound, ", "), "there are no databases yet"))
}

func checkStoreSize(_ context.Context, f *facts) finding {
	if !f.known {
		return f.why
	}
	if n := f.status.Store.Bytes; n > wantedBytes {
		return warn("sudo postern reset --cache", "the databases have %s", bytesText(n))
	}
	return ok("%s", bytesText(f.status.Store.Bytes))
}

func checkFlashWear(_ context.Context, f *facts) finding {
	switch {
	case !f.known:
		return f.why
	case !f.running:
		return skip(startAgent, "no agent runs, so nothing is written")
	case f.status.Store.WrittenBytes > wantedDaily:
		return warn("postern audit   # who asks so much?", "%s written today, %s are usual at most", bytesText(f.status.Store.WrittenBytes), bytesText(wantedDaily))
	}
	return ok("%s written today", bytesText(f.status.Store.WrittenBytes))
}

func checkFileSystem(_ context.Context, f *facts) finding {
	dir := f.host.Dirs().State
	system, err := f.host.FileSystem(dir)
	switch {
	case err != nil:
		return bad("ls -ld "+dir, "%v", err)
	case system.Remote && !f.cfg.AllowRemoteState:
		return bad("postern config print   # set state_dir to a local disk", "%s is on %s, which may lose what was written", dir, system.Type)
	case system.ReadOnly:
		return bad("sudo mount -o remount,rw "+dir, "%s is on a %s that is read-only", dir, system.Type)
	case system.Free < wantedBytes:
		return bad("df -h "+dir, "%s has %s left", dir, bytesText(system.Free))
	case fastCommit():
		return warn("sudo tune2fs -O ^fast_commit DEVICE   # or update the kernel", "an ext4 here uses fast_commit, and this kernel may lose what was written")
	}
	return ok("%s, %s free", system.Type, bytesText(system.Free))
}
