package token

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sort"
	"time"

	"postern/agent/lifecycle"
	"postern/platform"
	"postern/store"
)

const (
	// A commit costs about 40 KB of flash whatever is in it, so changes wait
	// until a round of refreshes is over. A caller never waits for the disk.
	saveSettle = 2 * time.Second
	saveQuiet  = 10 * time.Second // no refresh is due for so long
	saveLatest = 90 * time.Second
	saveLast   = 3 * time.Second // at the end, within the 5 s of a stop

	// When a key was last used rides on other writes if it is off by useRides,
	// and is worth one of its own once a day.
	useRides = 6 * time.Hour
	useDaily = lifecycle.Day
)

// unsaved is what the file does not have yet. Guarded by Broker.mu.
type unsaved struct {
	puts, drops map[key]bool
	since       time.Time // monotonic; zero when there is nothing
	again       bool      // the last commit failed, and what it held is still staged
}

func (u *unsaved) put(k key) {
	u.puts[k] = true
	delete(u.drops, k)
	u.mark()
}

func (u *unsaved) drop(k key) {
	delete(u.puts, k)
	u.drops[k] = true
	u.mark()
}

func (u *unsaved) mark() {
	if u.since.IsZero() {
		u.since = time.Now()
	}
}

// load takes in the tokens of the last run.
func (b *Broker) load() {
	if b.cache == nil {
		return
	}
	now := b.now()
	records := b.cache.Tokens()
	sort.SliceStable(records, func(i, j int) bool { return records[j].LastUsed.Before(records[i].LastUsed) })
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range records {
		r := &records[i]
		k := key{r.ClientID, r.Resource}
		m := fromRecord(r)
		if m == nil || len(b.slots) >= b.limits.Entries {
			b.unsaved.drop(k)
			continue
		}
		if m.trusted {
			b.clock.Raise(m.issued)
		}
		s := &slot{key: k, owner: platform.Peer(r.Owner), minted: m.rebased(now)}
		s.lastUsed.Store(int64(now.Boot - sinceUse(r.LastUsed, now)))
		s.savedUse = s.lastUsed.Load()
		if !now.Trusted {
			s.usedAt = r.LastUsed
		}
		// A power cut restarts a whole site at once.
		s.spread = now.Boot + lifecycle.Spread(lifecycle.Day, rand.Float64()) //nolint:gosec // jitter is no secret
		b.slots[k] = s
		if s.minted != m {
			b.unsaved.put(k)
		}
	}
}

// sinceUse is how long ago the last request was; 0 if that cannot be said.
func sinceUse(last time.Time, now lifecycle.Instant) time.Duration {
	if !now.Trusted || last.IsZero() {
		return 0
	}
	return min(max(now.Wall.Sub(last), 0), 2*warmLife)
}

// fromRecord returns the token of a record, nil if it is not one.
func fromRecord(r *store.TokenRecord) *minted {
	issued := Issued{Value: store.NewSecret(r.AccessToken), ExpiresIn: r.Expires.Sub(r.Issued)}
	if r.ClientID == "" || !validResource(r.Resource) || checkIssued(issued) != nil {
		return nil
	}
	return newMinted(issued.Value, minted{
		issued: r.Issued, expires: r.Expires, issuedBoot: r.IssuedBoot, bootID: r.BootID, trusted: r.TrustedWall,
	})
}

func (s *slot) record(now lifecycle.Instant) store.TokenRecord {
	m := s.minted
	r := store.TokenRecord{
		ClientID: s.key.clientID, Resource: s.key.resource, AccessToken: m.value.Reveal(),
		Issued: m.issued, Expires: m.expires, BootID: m.bootID, IssuedBoot: m.issuedBoot, TrustedWall: m.trusted,
		Owner: string(s.owner),
	}
	switch {
	case now.Trusted:
		r.LastUsed = now.Wall.Add(-s.unused(now)).Truncate(time.Hour)
	case s.lastUsed.Load() == s.savedUse:
		r.LastUsed = s.usedAt
	}
	return r
}

// saveWhenQuiet writes when there is something to write and the round is over:
// nothing is being fetched, nothing is due soon. It returns when to look again.
func (b *Broker) saveWhenQuiet(ctx context.Context, next time.Duration) time.Duration {
	b.mu.RLock()
	since, again, flying := b.unsaved.since, b.unsaved.again, len(b.flights)
	b.mu.RUnlock()
	if since.IsZero() {
		return tick
	}
	settle := saveSettle
	if again {
		settle = tick
	}
	age := time.Since(since)
	quiet := flying == 0 && next > saveQuiet
	switch {
	case quiet && age < settle:
		return settle - age
	case quiet || age >= saveLatest:
		b.save(ctx)
		return tick
	}
	return saveLatest - age
}

// save writes all that is unsaved in one commit. After a failure it tries
// again at the next tick: what was staged stays staged, and in memory.
func (b *Broker) save(ctx context.Context) {
	if b.cache == nil {
		return
	}
	change := b.takeUnsaved()
	if len(change.PutTokens)+len(change.DropTokens) > 0 {
		b.cache.Stage(change)
	}
	b.count.commits.Add(1)
	err := b.cache.Commit(ctx)
	if err == nil {
		return
	}
	b.complain.Do(func() { b.log.Warn("tokens not written, served from memory", slog.String("reason", err.Error())) })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unsaved.again = true
	b.unsaved.mark()
}

func (b *Broker) takeUnsaved() store.Change {
	now := b.now()
	var change store.Change
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.unsaved.drops {
		change.DropTokens = append(change.DropTokens, store.TokenKey{ClientID: k.clientID, Resource: k.resource})
	}
	for k, s := range b.slots {
		if b.unsaved.puts[k] || s.lastUsed.Load()-s.savedUse >= int64(useRides) {
			change.PutTokens = append(change.PutTokens, s.record(now))
			s.savedUse = s.lastUsed.Load()
		}
	}
	clear(b.unsaved.puts)
	clear(b.unsaved.drops)
	b.unsaved.since, b.unsaved.again = time.Time{}, false
	return change
}
