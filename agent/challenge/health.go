package challenge

// notice is what Health tells beyond the directory's problem; guarded by Keeper.mu.
type notice struct {
	unknown []string
	watch   string
}

// Counters count since the start. They feed postern_challenges_total.
type Counters struct {
	Minted   uint64
	Redeemed uint64 // answered 200
	Expired  uint64 // left without a 200: time over, gave way, directory given up
	Refused  uint64 // not made, or not valid when presented
}

// Health is what status and check show of the token directory.
type Health struct {
	Path        string // the directory in use
	Problem     string // why no challenge is made; empty if all is well
	Fix         string // one command, if Problem
	Watching    bool   // changes are noticed by event; otherwise by the rescan alone
	WatchReason string // why not, if not
	Outstanding int
	Unknown     []string // files that are not ours, at most 16 names as found on disk: quote them
	Counters    Counters
}

// Health returns how things stand. Safe for concurrent use.
func (k *Keeper) Health() Health {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := Health{
		Path:     k.path,
		Watching: k.notice.watch == watching, Outstanding: len(k.keys.byName),
		Unknown: k.notice.unknown, Counters: k.counters,
	}
	if !h.Watching {
		h.WatchReason = k.notice.watch
	}
	if k.problem != nil {
		h.Problem, h.Fix = k.problem.Error(), k.problem.Fix
	}
	return h
}

// watching is the notice while events arrive.
const watching = "watching"

func (k *Keeper) setWatch(state string) {
	k.mu.Lock()
	k.notice.watch = state
	k.mu.Unlock()
}
