//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"postern/crosscompile"
)

// sizes are those that the budget's test holds the binaries against.
func (b *bench) sizes(_ context.Context, _ options, t *tabwriter.Writer) error {
	known, err := crosscompile.ReadSizes(filepath.Join("crosscompile", "sizes.txt"))
	if err != nil {
		return err
	}
	for _, target := range crosscompile.Targets() {
		_, _ = fmt.Fprintf(t, "binary %s\t%.2f MB\tas written down in crosscompile/sizes.txt\n", target, float64(known[target.String()].Total())/(1<<20))
	}
	return nil
}

// flash counts the bytes that reach storage for one round in which every
// resource is refreshed, and at rest.
func (b *bench) flash(ctx context.Context, _ options, t *tabwriter.Writer) error {
	before, err := b.proc("io", "write_bytes:")
	if err != nil {
		return err
	}
	for i := range resources {
		if err := b.fetch(ctx, i, true); err != nil {
			return err
		}
	}
	if err := settle(ctx, 3*time.Second); err != nil {
		return err
	}
	after, err := b.proc("io", "write_bytes:")
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(t, "written to refresh %d resources one by one\t%d kB\t%d kB a day if hourly\n", resources, (after-before)>>10, (after-before)>>10*24)
	return nil
}

func settle(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start times exec to the first token, with the authority gone and an old cache.
func (b *bench) start(ctx context.Context, o options, t *tabwriter.Writer) error {
	stopProcess(b.authority)
	b.authority = nil
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	var times []time.Duration
	for range o.runs {
		stopProcess(b.agent)
		b.agent = exec.CommandContext(ctx, b.postern, "run", "--config", b.path("postern.toml"))
		began := time.Now()
		if err := b.agent.Start(); err != nil {
			return err
		}
		if err := poll(ctx, func() bool { return answers(client) }); err != nil {
			return fmt.Errorf("offline start: %w", err)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	_, _ = fmt.Fprintf(t, "offline start to first token\t%.1f ms\tmin %.1f, max %.1f of %d\n",
		ms(times[len(times)/2]), ms(times[0]), ms(times[len(times)-1]), len(times))
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// idleRows watches the agent at rest: 10 tokens cached, nobody asks, no network.
func (b *bench) idleRows(ctx context.Context, o options, t *tabwriter.Writer) error {
	if err := settle(ctx, o.settle); err != nil {
		return err
	}
	written, err := b.proc("io", "write_bytes:")
	if err != nil {
		return err
	}
	wakes, switches, err := b.watchIdle(ctx, o.idle)
	if err != nil {
		return err
	}
	writtenAfter, err := b.proc("io", "write_bytes:")
	if err != nil {
		return err
	}
	rss, err := b.proc("smaps_rollup", "Rss:")
	if err != nil {
		return err
	}
	anonymous, err := b.proc("smaps_rollup", "Anonymous:")
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(t, "idle resident memory, %d tokens\t%.1f MB\t%.1f MB of it anonymous\n", resources, float64(rss)/1024, float64(anonymous)/1024)
	seconds := o.idle.Seconds()
	_, _ = fmt.Fprintf(t, "idle wake-ups\t%.3f a second\t%d over %s, offline, %s after the start; %.2f context switches a second\n",
		float64(wakes)/seconds, wakes, o.idle, o.settle, float64(switches)/seconds)
	_, _ = fmt.Fprintf(t, "idle writes\t%d bytes\tover %s\n", writtenAfter-written, o.idle)
	return nil
}

// sampled is how close together two activities count as one wake-up.
const sampled = 100 * time.Millisecond

// watchIdle counts how often the resting agent wakes: the samples in which any
// of its threads ran. Context switches are more, since in a wake-up of a
// millisecond the runtime's monitor thread naps 20 us at a time.
func (b *bench) watchIdle(ctx context.Context, d time.Duration) (wakes, switches int64, err error) {
	first, err := b.switches()
	if err != nil {
		return 0, 0, err
	}
	ticker := time.NewTicker(sampled)
	defer ticker.Stop()
	last := first
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
		now, err := b.switches()
		if err != nil {
			return 0, 0, err
		}
		if now != last {
			wakes++
		}
		last = now
	}
	return wakes, last - first, nil
}

// switches is how often any thread of the agent gave up a processor.
func (b *bench) switches() (sum int64, err error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", b.agent.Process.Pid))
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		for _, key := range []string{"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"} {
			n, err := field(fmt.Sprintf("/proc/%d/task/%s/status", b.agent.Process.Pid, task.Name()), key)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

func (b *bench) proc(file, key string) (int64, error) {
	return field(fmt.Sprintf("/proc/%d/%s", b.agent.Process.Pid, file), key)
}

// field reads "key: number" from a file of /proc.
func field(path, key string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) >= 2 && fields[0] == key {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, key)
}
