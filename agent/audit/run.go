package audit

import (
	"context"
	"log/slog"
	"time"
)

const (
	tick = 30 * time.Second // no wait is longer: timers stop in suspend

	// When the room forces a commit of its own (firmware-notes/limits.md).
	flushEvery  = time.Hour
	flushDenied = 15 * time.Minute
	flushUrgent = time.Minute // at most so often
	flushSettle = 2 * time.Second
)

// flushing says when records that no commit has taken along are written.
// Guarded by Log.mu. Instants are monotonic.
type flushing struct {
	due  time.Time // zero if there is nothing to write
	last time.Time // the last forced commit; zero if there was none
}

// staged notes one more record.
func (f *flushing) staged(name Name) {
	now := time.Now()
	due := now.Add(flushEvery)
	switch {
	case name.urgent():
		due = later(now.Add(flushSettle), f.last.Add(flushUrgent))
	case name.denied():
		due = later(now.Add(flushSettle), f.last.Add(flushDenied))
	}
	if f.due.IsZero() || due.Before(f.due) {
		f.due = due
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Run makes records of what is recorded and writes them when they are due,
// until ctx ends. It does not wake while there is nothing to do. It returns
// nil; Close writes the rest.
func (l *Log) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		var timer *time.Timer
		var after <-chan time.Time
		if wait, some := l.round(ctx); some {
			timer = time.NewTimer(wait)
			after = timer.C
		}
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-after:
		}
		if timer != nil {
			timer.Stop()
		}
	}
	return nil
}

// round does what is due and returns the time until there is more; false if
// there is nothing to wait for but an event.
func (l *Log) round(ctx context.Context) (time.Duration, bool) {
	l.sweep(false)
	if err := l.drain(); err != nil {
		l.log.Error("audit record not made", slog.String("reason", err.Error()))
	}
	l.mu.Lock()
	due := l.flush.due
	l.mu.Unlock()
	if !due.IsZero() && !time.Now().Before(due) {
		l.commit(ctx)
	}
	return l.next()
}

func (l *Log) next() (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first time.Time
	for _, f := range l.folds {
		if first.IsZero() || f.until.Before(first) {
			first = f.until
		}
	}
	if due := l.flush.due; !due.IsZero() && (first.IsZero() || due.Before(first)) {
		first = due
	}
	if first.IsZero() {
		return 0, false
	}
	return min(max(time.Until(first), 0), tick), true
}

// commit writes what is staged, by whomever. Without anything it costs nothing.
func (l *Log) commit(ctx context.Context) {
	l.save.Lock()
	defer l.save.Unlock()
	l.mu.Lock()
	l.flush = flushing{last: time.Now()}
	l.mu.Unlock()
	err := l.o.Cache.Commit(ctx)
	if unwritten := err != nil; unwritten != l.unwritten {
		l.unwritten = unwritten
		l.sayUnwritten(err)
	}
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flush.due.IsZero() {
		l.flush.due = time.Now().Add(flushDenied)
	}
}

// sayUnwritten logs a change: that nothing can be written, or that it can again.
func (l *Log) sayUnwritten(err error) {
	if err == nil {
		l.log.Info("audit records are written again")
		return
	}
	l.log.Warn("audit records not written, kept in memory", slog.String("reason", err.Error()))
}

// Flush writes everything recorded so far, open minutes included.
func (l *Log) Flush(ctx context.Context) error {
	l.sweep(true)
	if err := l.drain(); err != nil {
		return err
	}
	l.commit(ctx)
	return nil
}

// Close writes what is unwritten. Record may still be called; nothing more is
// written then unless Flush is.
func (l *Log) Close(ctx context.Context) error { return l.Flush(ctx) }

// Read calls f with each record from the number from on, oldest first, one
// JSON document each without a newline, and with follow waits for more until
// ctx ends, whose error it then returns. An error of f ends it.
func (l *Log) Read(ctx context.Context, from uint64, follow bool, f func(line []byte) error) error {
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		next, err := l.readFrom(ctx, from, f)
		if err != nil || !follow {
			return err
		}
		from = next
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
