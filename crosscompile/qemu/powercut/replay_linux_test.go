//go:build linux

package powercut

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/crosscompile/qemu"
)

// roleEnv makes the test binary the process that checks one disk.
const roleEnv = "POSTERN_POWERCUT_CHECK"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "" {
		if err := CheckMain(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// recording is a log with what it promises.
type recording struct {
	machine
	dir   string // holds base and log
	base  Image
	log   *Log
	marks []Logged
}

// record boots the machine and cuts its power after so many marks; or opens
// the recording that -powercut.from names.
func record(t *testing.T, m machine, marks uint64) recording {
	t.Helper()
	if *from != "" {
		return open(t, m, *from)
	}
	dir := folder(t)
	g := m.prepare(t, dir)
	base, err := ReadImage(g.disk)
	if err == nil {
		err = base.Write(filepath.Join(dir, "base"), func(io.WriterAt) error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "log")
	if err := sparse(log, 1<<20); err != nil {
		t.Fatal(err)
	}
	g.run(t, log, func(m Mark) bool { return m.Seq >= marks })
	for _, name := range []string{"disk", "initrd", "writer"} {
		_ = os.Remove(filepath.Join(dir, name))
	}
	return open(t, m, dir)
}

func open(t *testing.T, m machine, dir string) recording {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r := recording{machine: m, dir: dir}
	if r.log, err = ReadLog(f, info.Size()); err != nil {
		t.Fatal(err)
	}
	if r.marks, err = r.log.Marks(); err != nil {
		t.Fatal(err)
	}
	if r.base, err = ReadImage(filepath.Join(dir, "base")); err != nil {
		t.Fatal(err)
	}
	if len(r.marks) < 3 {
		t.Fatalf("%d marks in %d entries: nothing was recorded", len(r.marks), len(r.log.Entries))
	}
	return r
}

// choose gives n crash points between the first flush, when the file system
// has been mounted, and the last mark: a third of them evenly, a third just behind a mark, where nothing excuses a loss, a
// third where an identity begins or ends, which is a small part of a life.
func (r recording) choose(n int, seed uint64) []int {
	if *point >= 0 {
		return []int{*point}
	}
	chance := rand.New(rand.NewPCG(seed, 7))
	first := 1 + slices.IndexFunc(r.log.Entries, func(e Entry) bool { return e.Flags&Flush != 0 })
	last := r.marks[len(r.marks)-1].Entry
	delicate := [][2]int{{first, r.marks[0].Entry + 1}}
	for i := 1; i < len(r.marks); i++ {
		if w := r.marks[i].What; w == Connected || w == Disconnected {
			delicate = append(delicate, [2]int{r.marks[i-1].Entry + 1, r.marks[i].Entry + 1})
		}
	}
	all := make([]int, 0, n)
	for i := range n {
		p := first + (last-first)*i/n
		switch i % 3 {
		case 1:
			p = r.marks[chance.IntN(len(r.marks)-1)].Entry + 1 + chance.IntN(3)
		case 2:
			span := delicate[chance.IntN(len(delicate))]
			p = span[0] + chance.IntN(span[1]-span[0])
		}
		all = append(all, min(p, last))
	}
	slices.Sort(all)
	return all
}

// question is what the disk has to hold at a point.
func (r recording) question(point int) Question {
	q := Question{FS: r.fs, Options: r.options, Dir: stateName, Last: Mark{Next: Opened, Identity: Empty, Cache: Empty}, Next: &r.marks[0].Mark}
	for i, m := range r.marks {
		if m.Entry >= point {
			break
		}
		q.Last, q.Next = m.Mark, nil
		if i+1 < len(r.marks) {
			q.Next = &r.marks[i+1].Mark
		}
	}
	return q
}

// tally is the outcome of many cuts.
type tally struct {
	Points, Bad, Late, Restored, Rebuilt int
	Gone                                 int            // of the bad ones, those that leave no identity to be used where there was one
	Littered                             int            // those at which a temporary file stays for ever
	During                               map[string]int // what was under way when a cache had to be made anew
	First                                []string       // of the bad ones
	Took                                 time.Duration
}

// cuts replays the recording at each point and checks what is left. bound is
// how long one check may take.
func (r recording) cuts(t *testing.T, at []int, cut Cut, patience int) tally {
	t.Helper()
	began := time.Now()
	postern, err := qemu.BuildAgent(t.Context(), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var group sync.WaitGroup
	sum := tally{Points: len(at), During: map[string]int{}}
	next := make(chan int)
	for worker := range 2 {
		group.Go(func() {
			image := filepath.Join(r.dir, fmt.Sprintf("cut-%d", worker))
			defer func() { _ = os.Remove(image) }()
			for i := range next {
				c := cut
				c.Point, c.Seed = at[i], cut.Seed+uint64(i) // a point that is chosen twice loses something else
				c.Torn = cut.Torn || c.Seed%2 == 0
				q := r.question(c.Point)
				q.Image, q.Postern = image, postern
				a, late := r.one(t.Context(), c, q, patience)
				mu.Lock()
				sum.add(a, late, c, q)
				mu.Unlock()
			}
		})
	}
	for i := range at {
		next <- i
	}
	close(next)
	group.Wait()
	sum.Took = time.Since(began)
	return sum
}

func (s *tally) add(a Answer, late bool, c Cut, q Question) {
	if late {
		s.Late++
	}
	if a.Restored != "" {
		s.Restored++
	}
	if a.Rebuilt != "" {
		s.Rebuilt++
		s.During[q.Last.Next]++
	}
	if len(a.Litter) > 0 {
		s.Littered++
		if a.Bad == "" {
			a.Bad = fmt.Sprintf("left for ever: %q", a.Litter)
		}
	}
	if a.Bad == "" {
		return
	}
	s.Bad++
	if q.Last.Identity != Empty && !a.Usable {
		s.Gone++
	}
	if len(s.First) < 3 {
		s.First = append(s.First, fmt.Sprintf("point %d, seed %d, torn %v, deaf %d: %s", c.Point, c.Seed, c.Torn, c.Deaf, a.Bad))
	}
}

// bound is how long the check of one disk may take; ten times as long if that
// is tried again.
const bound = 5 * time.Second

// one builds the disk and checks it in a process of its own. A check that took
// too long is made again patience times with more time: a busy machine is not
// a damaged disk. late says that the last one did, too.
func (r recording) one(ctx context.Context, c Cut, q Question, patience int) (a Answer, late bool) {
	for try := 0; ; try++ {
		err := r.build(q.Image, c)
		if err == nil {
			limit := bound
			if try > 0 {
				limit *= 10
			}
			a, err = ask(ctx, q, limit)
		}
		late = errors.Is(err, context.DeadlineExceeded)
		if late && try < patience {
			continue
		}
		if err != nil {
			a.Bad = err.Error()
		}
		return a, late
	}
}

func (r recording) build(image string, c Cut) error {
	return r.base.Write(image, func(disk io.WriterAt) error { return r.log.Replay(disk, c) })
}

// ask runs the check in a process with a mount namespace of its own.
func ask(ctx context.Context, q Question, limit time.Duration) (a Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	text, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	self, err := os.Executable()
	if err != nil {
		return a, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), roleEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	cmd.WaitDelay = time.Second
	var out, words bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &words
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return a, fmt.Errorf("the check took more than %s: %w", limit, ctx.Err())
		}
		return a, fmt.Errorf("the check died: %w %.500s", err, words.String())
	}
	return a, json.Unmarshal(out.Bytes(), &a)
}
