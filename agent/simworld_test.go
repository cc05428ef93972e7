package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/authority/site"
	"postern/agent/config"
	"postern/agent/control"
	"postern/platform/platformtest"
	"postern/store"
)

// simulate runs f in a bubble whose time is free. The goroutine that os/signal
// keeps for the whole process must not be born inside one.
func simulate(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	outside := make(chan os.Signal, 1)
	signal.Notify(outside, syscall.SIGHUP)
	defer signal.Stop(outside)
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm") // thousands of commits: the disk is not what is tested here
	}
	if _, err := simSite(); err != nil { // outside the bubble
		t.Fatal(err)
	}
	synctest.Test(t, f)
}

const (
	simURL  = "https://authority.sim:8443"
	simArc  = "127.0.0.1:40342"
	simIMDS = "127.0.0.1:40343"
	simName = "gw-0042"
)

// simulation is one device, its authority, and the truth about time.
type simulation struct {
	t       testing.TB
	sim     *platformtest.Sim
	link    *link
	site    *site.Authority
	cfg     config.Config
	rng     *rand.Rand
	skipped atomic.Int64 // what passed while the bubble's time stood still: suspended, off

	woke  atomic.Int64          // bubble's time of the last resume, Unix ns
	live  atomic.Pointer[graph] // for those who dial
	g     *graph
	halt  context.CancelFunc
	ended chan error

	tokens       map[simKey]simToken
	reconnecting atomic.Bool          // a person does it
	best         map[string]time.Time // end of the newest certificate seen
	used         map[string]time.Time // issue of the newest token of an identity
	figures      simFigures
	seed         uint64
	good         time.Time // since when link and clock have been right without a break, by the bubble's time

	mu     sync.Mutex
	trace  []string
	failed bool
}

// truth is the time that it is, whatever the device believes. The authority's
// clock is right.
func (s *simulation) truth() time.Time {
	return time.Now().Round(0).Add(time.Duration(s.skipped.Load())).UTC()
}

func newSimulation(t *testing.T, seed uint64, overrides ...config.Override) *simulation {
	t.Helper()
	s := &simulation{
		t: t, sim: platformtest.NewSim(t), link: newLink(), rng: rand.New(rand.NewPCG(seed, 0x706f7374)), seed: seed,
		tokens: map[simKey]simToken{}, best: map[string]time.Time{}, used: map[string]time.Time{},
	}
	s.link.dialed = s.onDial
	overrides = append([]config.Override{
		{Key: "state_dir", Value: s.sim.Dirs().State},
		{Key: "arc.listen", Value: simArc + ",[::1]:40342"},
		{Key: "imds.enabled", Value: "true"},
		{Key: "imds.listen", Value: simIMDS + ",[::1]:40343"},
	}, overrides...)
	cfg, err := config.Load("", nil, overrides...)
	if err != nil {
		t.Fatal(err)
	}
	s.cfg = cfg
	s.openSite()
	s.start()
	s.connect()
	return s
}

// simSite is the state of an authority that was made once: making its RSA key
// costs more than a simulated month.
var simSite = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "postern-sim-site-")
	if err != nil {
		return "", err
	}
	simLeft.Store(&dir)
	epoch := func() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) } // when every bubble begins
	a, err := site.Open(context.Background(), dir, site.Options{URL: simURL, Now: epoch, Store: store.Options{Now: epoch}})
	if err != nil {
		return "", err
	}
	return dir, a.Close()
})

// simLeft is the directory above, which outlives each test that copies it.
var simLeft atomic.Pointer[string] //nolint:gochecknoglobals // TestMain takes it away

func (s *simulation) openSite() {
	dir := filepath.Join(s.t.(*testing.T).TempDir(), "site")
	made, err := simSite()
	s.must(err)
	s.must(os.CopyFS(dir, os.DirFS(made)))
	s.must(private(dir))
	a, err := site.Open(context.Background(), dir, site.Options{URL: simURL, Now: s.truth, Version: "sim", Store: store.Options{Now: s.truth}})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx, s.link) }()
	s.site = a
	s.t.Cleanup(func() {
		s.stop()
		cancel()
		_ = s.link.Close()
		if err := errors.Join(<-served, a.Close()); err != nil {
			s.t.Errorf("authority: %v", err)
		}
		time.Sleep(2 * time.Minute) // idle connections end by themselves
	})
	s.must(a.AddResource(context.Background(), site.Resource{Identifier: "*", Wildcard: true}))
}

func (s *simulation) must(err error) {
	s.t.Helper()
	if err != nil {
		s.dump()
		s.t.Fatal(err)
	}
}

// connect claims the machine and one user-assigned identity.
func (s *simulation) connect() {
	s.t.Helper()
	ctx := context.Background()
	claim, err := s.site.CreateClaim(ctx, site.ClaimRequest{Machine: simName})
	s.must(err)
	s.must(s.g.Connect(ctx, control.ConnectRequest{Claim: claim.Token.Reveal()}, func(string) {}))
	s.assign("fleet")
	s.must(s.g.device.Sync(ctx))
	if got := len(s.g.device.List()); got != 2 {
		s.t.Fatalf("%d identities after connect, want 2", got)
	}
}

func (s *simulation) assign(name string) {
	s.t.Helper()
	if _, err := s.site.CreateIdentity(context.Background(), name, ""); err != nil && !errors.Is(err, site.ErrExists) {
		s.must(err)
	}
	s.must(s.site.Assign(context.Background(), name, simName))
}

// start starts the agent and waits until its sockets answer.
func (s *simulation) start() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g, err := build(ctx, plan{
		cfg: s.cfg, host: s.sim, log: slog.New(simLog{s}), mode: "run", dial: s.link.dial, poll: true,
	})
	if err != nil {
		cancel()
		s.must(fmt.Errorf("build: %w", err))
	}
	s.live.Store(g)
	ready := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- g.serve(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		s.must(fmt.Errorf("serve: %w", err))
	}
	s.g, s.halt, s.ended = g, cancel, ended
}

// stop ends the agent as SIGTERM does.
func (s *simulation) stop() {
	if s.g == nil {
		return
	}
	s.figures.took(s.g)
	s.halt()
	if err := <-s.ended; err != nil {
		s.t.Errorf("agent ended: %v", err)
	}
	s.g = nil
	s.live.Store(nil)
}

// cut is a power cut: what the disk holds now is what the next start finds.
func (s *simulation) cut() {
	s.t.Helper()
	synctest.Wait()
	dir := s.sim.Dirs().State
	kept := filepath.Join(filepath.Dir(dir), "kept")
	s.must(os.CopyFS(kept, os.DirFS(dir)))
	s.stop()
	s.must(os.RemoveAll(dir))
	s.must(os.Rename(kept, dir))
	s.must(private(dir))
}

// private gives a copied state directory the modes of the original.
func private(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
}

// pass lets d pass with the device asleep or off: no timer runs, the
// authority's clock does.
func (s *simulation) pass(d time.Duration) { s.skipped.Add(int64(d)) }

// suspend is a sleep of the whole machine.
func (s *simulation) suspend(d time.Duration) {
	s.say("suspend %v", d)
	s.pass(d)
	s.sim.Suspend(d)
	s.woke.Store(time.Now().UnixNano())
}

// boot starts the device after it was off for d. wall is what its clock says
// then, zero for a battery that kept it right.
func (s *simulation) boot(off time.Duration, wall time.Time, synchronised bool) {
	s.t.Helper()
	s.pass(off)
	s.sim.Reboot(s.t)
	if wall.IsZero() {
		wall = s.truth()
	}
	s.sim.SetWall(wall)
	s.sim.SetSynchronised(synchronised)
	s.say("boot after %v, clock %s, synchronised %t", off, wall.Format(time.DateTime), synchronised)
	s.start()
}

// ntp puts the clock right.
func (s *simulation) ntp() {
	s.sim.SetWall(s.truth())
	s.sim.SetSynchronised(true)
	s.say("time server heard")
}

// awake lets d pass with the device running.
func (s *simulation) awake(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	s.figures.awake += d
}

const simTrace = 60

func (s *simulation) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace = append(s.trace, s.truth().Format("2006-01-02 15:04:05 ")+fmt.Sprintf(format, args...))
	if len(s.trace) > simTrace {
		s.trace = s.trace[len(s.trace)-simTrace:]
	}
}

// wrong is a promise that was broken.
func (s *simulation) wrong(format string, args ...any) {
	s.t.Helper()
	s.say("BROKEN: "+format, args...)
	s.mu.Lock()
	first := !s.failed
	s.failed = true
	s.mu.Unlock()
	if !first {
		return
	}
	s.t.Errorf(format, args...)
	s.dump()
}

func (s *simulation) dump() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Logf("last events:\n%s\nreplay: go test ./agent -run 'TestSimulatedLives' -sim.seed=%d -sim.seeds=1 -sim.days=%d -v",
		strings.Join(s.trace, "\n"), s.seed, *simDays)
}

// simLog takes the agent's warnings into the trace.
type simLog struct{ s *simulation }

func (l simLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l simLog) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l simLog) WithGroup(string) slog.Handler                    { return l }
func (l simLog) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	line.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&line, " %s=%v", a.Key, a.Value); return true })
	l.s.say("  agent: %s", line.String())
	return nil
}
