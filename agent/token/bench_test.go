package token

import (
	"fmt"
	"testing"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
)

// benchBroker has tokens of a day for n resources, and real clocks.
func benchBroker(b *testing.B, n int) *Broker {
	b.Helper()
	clock := lifecycle.NewClock(lifecycle.ClockOptions{Source: newClocks("boot-1").read})
	ids := &fakeIdentities{standings: map[string]credential.Standing{}, clock: clock, contact: new(lifecycle.Contact)}
	ids.add(credential.SystemAssigned, systemID)
	o := Options{Identities: ids, Issuer: &fakeIssuer{life: 24 * time.Hour}, Clock: clock, Limits: Limits{Entries: n, PerPeer: n}}
	broker := NewBroker(o)
	for i := range n {
		r := by(request(systemID, fmt.Sprintf("api://%d", i)), uids[i%len(uids)])
		if _, err := broker.Token(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
	return broker
}

// What a cached answer costs in the broker. Of it, reading the clocks and the
// identity's standing belong to other rooms and are simulated here.
func BenchmarkCachedToken(b *testing.B) {
	grants := []Grant{{Who: "group:plant", Identity: "system", Resources: []string{"api://other/*"}}, {Who: "uid:1001", Identity: "system", Resources: []string{"api://*"}}}
	for name, g := range map[string]*Grants{"plain": nil, "granted": mustGrants(b, newPeople(), grants...)} {
		b.Run(name, func(b *testing.B) {
			broker := benchBroker(b, 10)
			broker.SetGrants(g)
			r := request(systemID, "api://3")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := broker.Token(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCachedTokenParallel(b *testing.B) {
	broker := benchBroker(b, 10)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := request(systemID, "api://3")
		for pb.Next() {
			if _, err := broker.Token(ctx, r); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// What a thousand grants cost, of which the last one fits.
func BenchmarkThousandGrants(b *testing.B) {
	var grants []Grant
	for i := range maxGrants {
		grants = append(grants, Grant{Who: fmt.Sprintf("uid:%d", 2000+i), Identity: "system", Resources: []string{vault}})
	}
	g := mustGrants(b, nil, grants...)
	caller := Caller{Peer: "uid:2999"}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := g.Allow(caller, systemIdent, vault); !ok {
			b.Fatal("refused")
		}
	}
}
