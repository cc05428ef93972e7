package lifecycle_test

import (
	"fmt"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

var (
	born = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	ends = born.Add(90 * lifecycle.Day)
)

// factClass is one way in which one fact can stand. The cross product of all
// of them, with all positions of now, is every situation that Derive knows.
type factClass struct {
	name string
	set  func(*lifecycle.Facts)
}

var factClasses = [][]factClass{
	{
		{"readable", func(*lifecycle.Facts) {}},
		{"damaged", func(f *lifecycle.Facts) { f.Damaged = "key unreadable" }},
	},
	{
		{"enrolled", func(f *lifecycle.Facts) { f.Enrolled = true }},
		{"unenrolled", func(*lifecycle.Facts) {}},
	},
	{
		{"same hardware", func(*lifecycle.Facts) {}},
		{"moved", func(f *lifecycle.Facts) { f.Moved = true }},
	},
	{
		{"accepted", func(*lifecycle.Facts) {}},
		{"rejected", func(f *lifecycle.Facts) { f.RejectedAt = born.Add(time.Hour) }},
	},
	{
		{"clock trusted", func(f *lifecycle.Facts) { f.ClockTrusted = true }},
		{"clock untrusted", func(*lifecycle.Facts) {}},
	},
	{
		{"certificate", func(f *lifecycle.Facts) { f.NotBefore, f.NotAfter = born, ends }},
		{"no certificate", func(*lifecycle.Facts) {}},
	},
	{
		{"never heard", func(*lifecycle.Facts) {}},
		{"heard at birth", func(f *lifecycle.Facts) { f.LastContact = born }},
		{"heard near the end", func(f *lifecycle.Facts) { f.LastContact = ends.Add(-time.Minute) }},
	},
	{
		{"15 min by default", func(*lifecycle.Facts) {}},
		{"an hour", func(f *lifecycle.Facts) { f.OfflineAfter = time.Hour }},
		{"nonsense", func(f *lifecycle.Facts) { f.OfflineAfter = -time.Hour }},
	},
}

var instants = []time.Time{
	{},
	time.Unix(0, 0), born.Add(-time.Hour), born, born.Add(time.Minute),
	born.Add(15*time.Minute - 1), born.Add(15 * time.Minute), born.Add(time.Hour), born.Add(30 * lifecycle.Day),
	ends.Add(-1), ends, ends.Add(time.Second), time.Date(2106, 2, 7, 6, 28, 15, 0, time.UTC),
}

// expected is the table of firmware-notes/lifecycle.md, word by word.
func expected(f lifecycle.Facts, now time.Time) lifecycle.State {
	offline := f.OfflineAfter
	if offline <= 0 {
		offline = 15 * time.Minute
	}
	for _, row := range []struct {
		when bool
		is   lifecycle.State
	}{
		{f.Damaged != "", lifecycle.Damaged},
		{!f.Enrolled, lifecycle.Unenrolled},
		{f.NotAfter.IsZero(), lifecycle.Unenrolled},
		{f.Moved, lifecycle.Moved},
		{!f.RejectedAt.IsZero(), lifecycle.Rejected},
		{!f.ClockTrusted, lifecycle.ClockUntrusted},
		{now.Sub(f.NotAfter) >= 0, lifecycle.Expired},
		{f.LastContact.IsZero() || now.Sub(f.LastContact) >= offline, lifecycle.Offline},
	} {
		if row.when {
			return row.is
		}
	}
	return lifecycle.Connected
}

// everySituation visits the whole cross product.
func everySituation(visit func(name string, f lifecycle.Facts)) (n int) {
	var walk func(i int, name string, f lifecycle.Facts)
	walk = func(i int, name string, f lifecycle.Facts) {
		if i == len(factClasses) {
			visit(name, f)
			n++
			return
		}
		for _, c := range factClasses[i] {
			next := f
			c.set(&next)
			walk(i+1, name+", "+c.name, next)
		}
	}
	walk(0, "", lifecycle.Facts{})
	return n
}

func TestEverySituationHasTheStateOfTheTable(t *testing.T) {
	seen := map[lifecycle.State]int{}
	n := everySituation(func(name string, f lifecycle.Facts) {
		for _, now := range instants {
			got, _ := lifecycle.Derive(f, now)
			if want := expected(f, now); got != want {
				t.Errorf("%s, now %s: got %s, want %s", name, now, got, want)
			}
			seen[got]++
		}
	})
	if want := 2 * 2 * 2 * 2 * 2 * 2 * 3 * 3; n != want {
		t.Fatalf("visited %d situations, want %d", n, want)
	}
	for s := lifecycle.Damaged; s <= lifecycle.Connected; s++ {
		if seen[s] == 0 {
			t.Errorf("no situation is %s: the table does not cover it", s)
		}
	}
	t.Logf("%d situations at %d instants", n, len(instants))
}

func TestUntilIsTheNextChangeInEverySituation(t *testing.T) {
	everySituation(func(name string, f lifecycle.Facts) {
		for _, now := range instants {
			checkUntil(t, fmt.Sprintf("%s, now %s", name, now), f, now)
		}
	})
}

// checkUntil holds Derive to its promise: the state stands until the instant
// and not at it, or for ever.
func checkUntil(t interface {
	Helper()
	Errorf(string, ...any)
}, name string, f lifecycle.Facts, now time.Time,
) {
	t.Helper()
	state, until := lifecycle.Derive(f, now)
	if until.IsZero() {
		for _, far := range []time.Duration{time.Nanosecond, time.Hour, 100 * 365 * lifecycle.Day} {
			if later, _ := lifecycle.Derive(f, now.Add(far)); later != state {
				t.Errorf("%s: %s stands for ever, but is %s after %s", name, state, later, far)
			}
		}
		return
	}
	if !until.After(now) {
		t.Errorf("%s: %s until %s, which is not later", name, state, until)
	}
	if before, _ := lifecycle.Derive(f, until.Add(-1)); before != state {
		t.Errorf("%s: %s until %s, but %s just before", name, state, until, before)
	}
	if at, _ := lifecycle.Derive(f, until); at == state {
		t.Errorf("%s: %s until %s, but still then", name, state, until)
	}
}

func TestIdentityLivesToTheLastSecondOfItsCertificate(t *testing.T) {
	f := lifecycle.Facts{Enrolled: true, ClockTrusted: true, NotBefore: born, NotAfter: ends}
	last := ends.Add(-time.Second)
	if s, until := lifecycle.Derive(f, last); s != lifecycle.Offline || !until.Equal(ends) {
		t.Errorf("at the last second: %s until %s, want Offline until %s", s, until, ends)
	}
	if s, until := lifecycle.Derive(f, ends); s != lifecycle.Expired || !until.IsZero() {
		t.Errorf("at the end: %s until %s, want Expired for ever", s, until)
	}
}

func TestUntilIsUTC(t *testing.T) {
	zone := time.FixedZone("plant", 9*3600)
	f := lifecycle.Facts{Enrolled: true, ClockTrusted: true, NotAfter: ends.In(zone), LastContact: born.In(zone)}
	for _, now := range []time.Time{born, born.Add(time.Hour)} {
		if _, until := lifecycle.Derive(f, now); until.Location() != time.UTC {
			t.Errorf("until is in %s", until.Location())
		}
	}
}

func TestStatesPermitWhatTheTableSays(t *testing.T) {
	for _, row := range []struct {
		state                             lifecycle.State
		cached, proven, issue, mayContact bool
	}{
		{lifecycle.Damaged, false, false, false, false},
		{lifecycle.Unenrolled, false, false, false, false},
		{lifecycle.Moved, false, false, false, false},
		{lifecycle.Rejected, false, false, false, true},
		{lifecycle.ClockUntrusted, false, true, false, true},
		{lifecycle.Expired, true, true, false, false},
		{lifecycle.Offline, true, true, true, true},
		{lifecycle.Connected, true, true, true, true},
		{lifecycle.State(0), false, false, false, false},
		{lifecycle.State(9), false, false, false, false},
	} {
		s := row.state
		if got := [4]bool{s.ServesCached(false), s.ServesCached(true), s.MayIssue(), s.MayContact()}; got != [4]bool{row.cached, row.proven, row.issue, row.mayContact} {
			t.Errorf("%s: cached, proven, issue, contact = %v, want %v", s, got, [4]bool{row.cached, row.proven, row.issue, row.mayContact})
		}
	}
}
