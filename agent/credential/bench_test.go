package credential

import (
	"context"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// BenchmarkStanding is on the path of every token request: no lock is held
// across it but a read lock, and it reaches no disk.
func BenchmarkStanding(b *testing.B) {
	ca := newAuthority(b)
	file, err := store.OpenIdentity(context.Background(), b.TempDir(), store.Options{})
	must(b, err)
	defer func() { must(b, file.Close()) }()
	start := time.Now()
	clock := lifecycle.NewClock(lifecycle.ClockOptions{Source: func() lifecycle.Reading {
		return lifecycle.Reading{Wall: time.Now().UTC(), Boot: time.Since(start), BootID: "boot", Synchronised: true}
	}})
	d, err := Open(Options{File: file, Clock: clock, Dial: func(store.DeviceRecord) (Authority, error) { return ca, nil }})
	must(b, err)
	_, err = d.Connect(context.Background(), Onboarding{AuthorityURL: authURL, RootPEM: ca.rootPEM(), Claim: ca.claim(systemIdentity())})
	must(b, err)
	for name, state := range map[string]lifecycle.State{"connected": lifecycle.Connected, "offline": lifecycle.Offline} {
		b.Run(name, func(b *testing.B) {
			d.o.OfflineAfter = map[lifecycle.State]time.Duration{lifecycle.Connected: time.Hour, lifecycle.Offline: 1}[state]
			if st, _ := d.Standing(systemID); st.State != state {
				b.Fatalf("state %s", st.State)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := d.Standing(systemID); !ok {
					b.Fatal("gone")
				}
			}
		})
	}
}
