package audit

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"postern/agent/lifecycle"
	"postern/platform"
	"postern/store"
)

const (
	foldFor = time.Minute // equal repeats within it are one record
	// maxFolds bounds the events that are waited for. What finds no place is
	// counted as dropped.
	maxFolds = 1024
	// Tokens from the cache may make so many records; beyond, their minutes
	// grow longer instead, so that no caller can fill the ring and the card
	// with them: 240 an hour are about 2 MB of flash a day.
	routineEvery = 15 * time.Second
	routineBurst = 120
)

// Options are what a Log works with.
type Options struct {
	Cache    *store.Cache // keeps the ring; not nil
	Clock    *lifecycle.Clock
	UserName func(platform.Peer) string // may be nil: records have no names
	Mode     string                     // "dev" is shown in each record; empty on a device
	Log      *slog.Logger               // may be nil
}

// Log records events. Make it with Open. All methods are safe for concurrent
// use.
type Log struct {
	o       Options
	log     *slog.Logger
	wake    chan struct{} // capacity 1
	routine *rate.Limiter

	mu      sync.Mutex
	folds   map[foldKey]*fold // guarded by mu
	queue   []queued          // guarded by mu
	dropped uint64            // guarded by mu
	changed chan struct{}     // closed and replaced when there is a new record; guarded by mu

	// write is held while records are numbered and staged. Taken before mu.
	write    sync.Mutex
	seq      uint64    // of the newest record; guarded by write
	prev     digest    // of the newest record; guarded by write
	recorded uint64    // since the start; guarded by write
	names    nameCache // guarded by write

	// save is held during a commit. Taken before write.
	save      sync.Mutex
	unwritten bool     // the last commit failed, which was said; guarded by save
	flush     flushing // guarded by mu
}

// fold is an event whose repeats are being counted.
type fold struct {
	event Event // clean
	more  uint64
	until time.Time
}

// queued is a record to be written.
type queued struct {
	event Event // clean
	at    lifecycle.Instant
	count uint64
}

// Open continues the chain where the ring ends.
func Open(o Options) (*Log, error) {
	if o.Cache == nil || o.Clock == nil {
		return nil, errors.New("audit: open: no cache or no clock")
	}
	l := &Log{
		o: o, log: o.Log, wake: make(chan struct{}, 1),
		routine: rate.NewLimiter(rate.Every(routineEvery), routineBurst),
		folds:   make(map[foldKey]*fold), changed: make(chan struct{}), prev: genesis,
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if err := l.catchUp(); err != nil {
		return nil, err
	}
	return l, nil
}

// catchUp continues where the ring ends if that is further than we are: at
// the start, and when a file that could not be read then can be read now.
// write is held, or nobody else knows l.
func (l *Log) catchUp() error {
	last := l.o.Cache.LastAudit()
	if last <= l.seq {
		return nil
	}
	return l.o.Cache.Audit(last, func(e store.AuditEntry) error {
		l.seq, l.prev = e.Seq, digestOf(e.JSON)
		return nil
	})
}

// Record takes an event in. It costs a map look-up for a repeat and never
// waits for the disk: the record is made by Run, or by whoever reads next.
func (l *Log) Record(e Event) {
	k := e.foldKey()
	l.mu.Lock()
	if f := l.folds[k]; f != nil {
		f.more++
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	l.first(k, e.cleaned())
}

// first records an event that no open fold waits for.
func (l *Log) first(k foldKey, e Event) {
	at := l.o.Clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.folds[k]; f != nil {
		f.more++
		return
	}
	if len(l.folds) >= maxFolds {
		l.dropped++
		return
	}
	f := &fold{event: e, until: time.Now().Add(foldFor)}
	l.folds[k] = f
	if e.routine() && !l.routine.Allow() {
		f.more = 1 // its record waits for the end of the minute, or of a later one
		return
	}
	l.queue = append(l.queue, queued{event: e, at: at, count: 1})
	l.poke()
}

func (l *Log) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// sweep closes the folds whose minute is over, or all of them. A fold that
// counted something stays open for another minute: its repeats go on.
func (l *Log) sweep(all bool) {
	at, now := l.o.Clock.Now(), time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, f := range l.folds {
		if !all && now.Before(f.until) {
			continue
		}
		f.until = now.Add(foldFor)
		if f.more == 0 || all {
			delete(l.folds, k)
		}
		if f.more == 0 || !all && f.event.routine() && !l.routine.Allow() {
			continue
		}
		l.queue = append(l.queue, queued{event: f.event, at: at, count: f.more})
		f.more = 0
	}
}

// drain numbers, chains and stages what is queued.
func (l *Log) drain() error {
	l.write.Lock()
	defer l.write.Unlock()
	l.mu.Lock()
	queue := l.queue
	l.queue = nil
	l.mu.Unlock()
	if len(queue) == 0 {
		return nil
	}
	if err := l.catchUp(); err != nil {
		return err
	}
	var change store.Change
	for i := range queue {
		entry, err := l.chain(&queue[i])
		if err != nil {
			return err
		}
		change.Audit = append(change.Audit, entry)
	}
	l.o.Cache.Stage(change)
	l.mu.Lock()
	for i := range queue {
		l.flush.staged(queue[i].event.Name)
	}
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	return nil
}

// chain makes the next record. write is held.
func (l *Log) chain(q *queued) (store.AuditEntry, error) {
	r := newRecord(&q.event, l.names.name(l.o.UserName, q.event.Peer), l.o.Mode, q.at, q.count)
	r.Seq, r.Prev = l.seq+1, string(l.prev)
	line, err := encode(&r)
	if err != nil {
		return store.AuditEntry{}, err
	}
	l.seq, l.prev = r.Seq, digestOf(line)
	l.recorded++
	l.say(q, &r)
	return store.AuditEntry{Seq: r.Seq, JSON: line}, nil
}

// say writes the record's log line, for those who ship logs. Tokens from the
// cache are the normal case and appear at debug level only.
func (l *Log) say(q *queued, r *Record) {
	if q.event.Logged {
		return
	}
	level := slog.LevelInfo
	switch {
	case q.event.routine():
		level = slog.LevelDebug
	case q.event.Name.denied(), q.event.Name == AccessDrift, q.event.Name == ClockJumped:
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("event", string(r.Event)), slog.Uint64("seq", r.Seq)}
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("identity", r.Identity)
	add("resource", r.Resource)
	add("flavour", r.Flavour)
	if c := r.Caller; c != nil {
		if c.UID != nil {
			attrs = append(attrs, slog.Uint64("uid", uint64(*c.UID)))
		}
		add("peer", c.Peer)
		add("user", c.User)
		add("listener", c.Listener)
		add("agent", c.Agent)
	}
	add("reason", r.Reason)
	add("source", r.Source)
	add("token", r.Token)
	attrs = append(attrs, slog.Uint64("count", r.Count))
	l.log.LogAttrs(context.Background(), level, words(r.Event), attrs...)
}

// Stats are counts since the start.
type Stats struct {
	Records uint64 // made
	Dropped uint64 // events that found no place, because over a thousand different ones were counted
}

// Stats returns the counts.
func (l *Log) Stats() Stats {
	l.write.Lock()
	defer l.write.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Records: l.recorded, Dropped: l.dropped}
}
