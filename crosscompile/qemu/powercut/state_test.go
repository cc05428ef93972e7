package powercut

import "testing"

func TestStateIsWhatWasAcknowledgedOrWasUnderWay(t *testing.T) {
	last := Mark{Seq: 9, Identity: "i9", Cache: "c9", Serial: 103, Round: 5}
	next := func(what string) Mark { m := last; m.Next = what; return m }
	at := State{Exists: true, Identity: "i9", Cache: "c9", Serial: 103, Previous: 102, Round: 5}
	with := func(change func(*State)) State { s := at; change(&s); return s }
	gone := with(func(s *State) { s.Exists, s.Identity, s.Serial, s.Previous = false, Empty, 0, 0 })
	empty := with(func(s *State) { s.Cache, s.Round = Empty, 0 })
	pending := with(func(s *State) { s.Identity, s.Pending = "i10", true })
	renewed := with(func(s *State) { s.Identity, s.Serial, s.Previous = "i10", 104, 103 })
	older := with(func(s *State) { s.Identity, s.Serial, s.Previous = "i7", 102, 101 })
	round := with(func(s *State) { s.Cache, s.Round = "c10", 6 })
	for _, c := range []struct {
		name  string
		found State
		last  Mark
		next  *Mark
		ok    bool
	}{
		{"as acknowledged", at, next(Refreshed), nil, true},
		{"as acknowledged, known", at, next(Refreshed), &Mark{Identity: "i9", Cache: "c10"}, true},
		{"one ahead, known", round, next(Refreshed), &Mark{Identity: "i9", Cache: "c10"}, true},
		{"neither, known", with(func(s *State) { s.Cache = "c8" }), next(Refreshed), &Mark{Identity: "i9", Cache: "c10"}, false},
		{"older identity, known", older, next(Pending), &Mark{Identity: "i10", Cache: "c9"}, false},
		{"round under way", round, next(Refreshed), nil, true},
		{"round that nobody began", round, next(Pending), nil, false},
		{"cache gone", empty, next(Refreshed), nil, false},
		{"cache gone with the identity", empty, next(Disconnected), nil, true},
		{"identity gone", gone, next(Refreshed), nil, false},
		{"identity gone while renewing", gone, next(Renewed), nil, false},
		{"identity ended", gone, next(Disconnected), nil, true},
		{"key stored", pending, next(Pending), nil, true},
		{"key lost that the authority knows", older, next(Renewed), nil, false},
		{"renewed", renewed, next(Renewed), nil, true},
		{"renewed without being asked", renewed, next(Refreshed), nil, false},
		{"older certificate", older, next(Renewed), nil, false},
		{"connected", renewed, next(Connected), nil, true},
	} {
		if err := c.found.Allowed(c.last, c.next); (err == nil) != c.ok {
			t.Errorf("%s: %v, want allowed %v", c.name, err, c.ok)
		}
	}
}
