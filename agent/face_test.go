package main

import (
	"log/slog"
	"testing"

	"postern/agent/config"
	"postern/agent/credential"
	"postern/agent/token"
	"postern/platform"
	"postern/platform/platformtest"
)

// TestGrantThatIsReadAgainOpensTheIMDSDoor: without it the broker would allow
// what the door refuses until the next restart, and let in whom it refuses.
func TestGrantThatIsReadAgainOpensTheIMDSDoor(t *testing.T) {
	cfg, err := config.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	sim := platformtest.NewSim(t)
	sim.AddUser("late", platform.UIDPeer(1004))
	g := &graph{cfg: cfg, host: sim, log: slog.New(slog.DiscardHandler), broker: token.NewBroker(token.Options{}), upstream: new(upstream), device: new(credential.Device)}
	g.reread = func() (config.Config, error) { return cfg, nil }
	for _, step := range []struct {
		who  string
		open map[uint32]bool
	}{
		{"uid:1003", map[uint32]bool{0: true, 1000: true, 1003: true, 1004: false}},
		{"user:late", map[uint32]bool{0: true, 1000: true, 1003: false, 1004: true}},
		{"group:himds", map[uint32]bool{0: true, 1000: true, 1003: false, 1004: false}},
	} {
		cfg.Grants = []config.Grant{{Who: step.who, Identity: "system", Resources: []string{"*"}}}
		g.reload()
		for uid, want := range step.open {
			if got := g.mayIMDS(platform.UIDPeer(uid)); got != want {
				t.Errorf("with a grant of %s: uid %d is let in: %v, want %v", step.who, uid, got, want)
			}
		}
		if g.mayIMDS(platform.Unknown) {
			t.Errorf("with a grant of %s an unknown caller is let in", step.who)
		}
	}
}
