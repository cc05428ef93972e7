package challenge

import (
	"errors"
	"io/fs"

	"postern/platform"
)

// held is an open token directory with the number of calls that use it, so that
// it is closed only when the last one is through: a descriptor number that is
// closed too early may be another directory's by then.
type held struct {
	dir platform.Dir

	users int  // guarded by Keeper.mu
	given bool // given up; guarded by Keeper.mu
}

// hold says that h will be used; false if it was given up.
func (k *Keeper) hold(h *held) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h == nil || h.given {
		return false
	}
	h.users++
	return true
}

// release ends a use and closes h if it was given up and nobody else uses it.
func (k *Keeper) release(h *held) {
	k.mu.Lock()
	h.users--
	last := h.given && h.users == 0
	k.mu.Unlock()
	if last {
		k.closeDir(h)
	}
}

func (k *Keeper) closeDir(h *held) {
	if err := h.dir.Close(); err != nil {
		k.log.Debug("close the former token directory", "path", k.path, "reason", err)
	}
}

// settle returns the directory that stands at the path and fits the policy,
// held; release it. If the one we have does not, the path is opened anew: a
// directory that fits is adopted, any other is the error.
func (k *Keeper) settle() (*held, error) {
	k.mu.Lock()
	h := k.dir
	k.mu.Unlock()
	if k.hold(h) {
		if h.dir.Check() == nil {
			return h, nil
		}
		k.release(h)
	}
	dir, err := k.open()
	if err != nil {
		return nil, err
	}
	fresh := &held{dir: dir, users: 1}
	if err := dir.Check(); err != nil { // right by itself, and not where clients look
		k.closeDir(fresh)
		return nil, err
	}
	k.adopt(fresh, h != nil)
	return fresh, nil
}

// open opens the directory, which it makes first where there is none and the
// parent is safe.
func (k *Keeper) open() (platform.Dir, error) {
	dir, err := k.host.OpenDir(k.path, platform.TokenReaders)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if err := k.host.Secure(k.path, platform.TokenReaders); err != nil {
		return nil, err
	}
	return k.host.OpenDir(k.path, platform.TokenReaders)
}

// adopt makes fresh the directory. Challenges of the former one are void: no
// client can read them any more, or too many can.
func (k *Keeper) adopt(fresh *held, replaces bool) {
	k.mu.Lock()
	former, stopped := k.dir, k.stopped
	k.dir = fresh
	k.mu.Unlock()
	k.giveUp(former)
	if replaces && !stopped {
		k.log.Warn("token directory was replaced by one that fits: adopted", "event", "token-dir-replaced", "path", k.path)
		k.event(Event{Name: "token-dir-replaced", Path: k.path, Reason: "another directory stands at the path; its access is right"})
	}
}

// giveUp voids the keys of h, removes their files and closes it.
func (k *Keeper) giveUp(h *held) {
	if h == nil {
		return
	}
	k.void(h)
	k.mu.Lock()
	h.given = true
	last := h.users == 0
	k.mu.Unlock()
	if last {
		k.closeDir(h)
	}
}

// void drops all keys of h and removes their files, as far as that goes.
func (k *Keeper) void(h *held) {
	k.mu.Lock()
	gone := k.keys.takeIf(func(e *entry) bool { return e.dir == h })
	k.countGone(gone)
	k.mu.Unlock()
	k.unlink(gone)
}

// drift describes err and, when it is news, reports it.
func (k *Keeper) drift(err error) *DirError {
	e := dirError(k.path, err)
	k.mu.Lock()
	news := k.problem == nil || k.problem.Error() != e.Error()
	k.problem = e
	k.mu.Unlock()
	if news {
		k.log.Error("no challenges until the token directory is right", "event", "access-drift", "path", e.Path, "reason", e.Problem, "fix", e.Fix)
		k.event(Event{Name: "access-drift", Path: e.Path, Reason: e.Problem})
	}
	return e
}

// right notes that the directory is as it should be.
func (k *Keeper) right() {
	k.mu.Lock()
	was := k.problem
	k.problem = nil
	k.mu.Unlock()
	if was != nil {
		k.log.Info("token directory is right again", "path", k.path)
	}
}
