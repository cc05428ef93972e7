package powercut

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"postern/store"
)

// Question is what one check is asked: whether the disk in Image holds what
// was acknowledged.
type Question struct {
	Image   string // a disk as laid out in this package
	FS      string // "ext4"
	Options string // mount options
	Postern string // the real program, for its verdict
	Dir     string // the state directory, in the first partition
	Last    Mark   // newest acknowledgement before the cut
	Next    *Mark  // what was under way; nil if unknown
}

// Answer is what was found. Bad is empty if nothing is lost.
type Answer struct {
	Bad      string
	Usable   bool              // there is an identity that can be used, be it an old one
	Restored string            // what the identity was restored from, if it was
	Rebuilt  string            // why the cache was made anew, if it was
	Verdicts map[string]string // of `postern store verify`, by file
	Litter   []string          // temporary files that the start did not remove
}

// CheckMain is the body of the process that checks one disk: a Question as
// JSON on r, an Answer on w. It mounts, so it needs root and must have a
// mount namespace of its own; whatever a bad disk does to it ends with it.
func CheckMain(ctx context.Context, r io.Reader, w io.Writer) error {
	var q Question
	if err := json.NewDecoder(r).Decode(&q); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(q.answer(ctx))
}

// checkPoint is where the disk is mounted, in a namespace where nobody sees it.
const checkPoint = "/mnt"

func (q Question) answer(ctx context.Context) Answer {
	a := Answer{Verdicts: map[string]string{}}
	if err := q.mount(ctx); err != nil {
		a.Bad = "mount: " + err.Error()
		return a
	}
	if err := q.look(ctx, &a); err != nil {
		a.Bad = err.Error()
	}
	if out, err := exec.CommandContext(ctx, "umount", checkPoint).CombinedOutput(); err != nil && a.Bad == "" {
		a.Bad = fmt.Sprintf("umount: %v %s", err, out)
	}
	return a
}

func (q Question) mount(ctx context.Context) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	options := fmt.Sprintf("loop,offset=%d,sizelimit=%d", FSStart, FSSize)
	if q.Options != "" {
		options += "," + q.Options
	}
	if out, err := exec.CommandContext(ctx, "mount", "-t", q.FS, "-o", options, q.Image, checkPoint).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// look judges the files one by one by the program's verdict, then all of them
// by opening them as the agent does, its watch of 30 s included.
func (q Question) look(ctx context.Context, a *Answer) error {
	dir := filepath.Join(checkPoint, q.Dir)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) && q.Last.What == "" {
		return nil // nothing was acknowledged, not even that there is a state directory
	}
	var damaged []string
	for _, name := range []string{"identity.db", "identity.db.bak", "cache.db"} {
		verdict, err := q.verify(ctx, filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if verdict != "" {
			a.Verdicts[name] = verdict
		}
		if verdict != "" && verdict != "ok" {
			damaged = append(damaged, name+" "+verdict)
		}
	}
	found, err := q.open(ctx, dir, a)
	if err == nil {
		err = found.Allowed(q.Last, q.Next)
	}
	if err == nil {
		a.Litter, err = litter(dir)
	}
	if err == nil && (a.Restored != "" || a.Rebuilt != "") {
		var again Answer // what was put right must stay so
		var second State
		if second, err = q.open(ctx, dir, &again); err == nil && (second != found || again.Restored != "" || again.Rebuilt != "") {
			err = fmt.Errorf("opened again it is another: %+v, then %+v", found, second)
		}
	}
	if err != nil && len(damaged) > 0 {
		err = fmt.Errorf("%w; %s", err, strings.Join(damaged, "; "))
	}
	return err
}

// litter lists what a file half made leaves under a name that is never used
// again: it would stay for ever, and may hold a key.
func litter(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// verify asks the real program; empty if there is no such file.
func (q Question) verify(ctx context.Context, path string) (string, error) {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	out, err := exec.CommandContext(ctx, q.Postern, "store", "verify", path).Output()
	verdict := strings.TrimSpace(string(out))
	var exit *exec.ExitError
	switch {
	case err == nil && verdict == "ok":
		return "ok", nil
	case errors.As(err, &exit) && verdict == "":
		return "the check did not survive it: " + strconv.Itoa(exit.ExitCode()), nil
	case errors.As(err, &exit):
		return verdict, nil
	}
	return "", fmt.Errorf("%s says %q: %w", q.Postern, verdict, err)
}

func (q Question) open(ctx context.Context, dir string, a *Answer) (s State, err error) {
	f, c, err := Open(ctx, dir, store.Child(func(ctx context.Context, path string) *exec.Cmd {
		return exec.CommandContext(ctx, q.Postern, "store", "verify", path)
	}))
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, c.Close(), f.Close()) }()
	if s, err = StateOf(f, c); err != nil {
		return s, err
	}
	a.Usable = s.Serial > 0
	if err := errors.Join(f.Check(ctx), c.Check(ctx)); err != nil {
		return s, fmt.Errorf("check after the start: %w", err)
	}
	a.Restored, a.Rebuilt = f.Health().Recovered, c.Health().Recovered
	if h := c.Health(); h.Mode != store.ModeDisk {
		return s, fmt.Errorf("the cache is in mode %s: %s", h.Mode, h.Problem)
	}
	return s, nil
}
