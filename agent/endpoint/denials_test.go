package endpoint

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/platform"
)

func TestDenialsAreToldOnceAMinuteForACallerAndReason(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		ask := func(p platform.Peer, times int, headers ...string) {
			l := b.connect(p)
			for range times {
				l.ask(http.MethodGet, request(tokenURI, headers...))
			}
			_ = l.c.Close()
			synctest.Wait()
		}
		ask(alice, 500, "Origin: x")
		ask(alice, 3, "Via: x")
		ask(bob, 7, "Origin: x")
		ask(bob, 2)
		time.Sleep(denialEvery)
		ask(alice, 1, "Origin: x", "User-Agent: a\tb")
		want := []Denial{
			{Reason: "guard: browser", Peer: alice, Count: 1},
			{Reason: "guard: forwarded", Peer: alice, Count: 1},
			{Reason: "guard: browser", Peer: bob, Count: 1},
			{Reason: "imds not allowed", Peer: bob, Count: 1},
			{Reason: "guard: browser", Peer: alice, Count: 500},
		}
		got := b.denied()
		if len(got) != len(want) {
			t.Fatalf("%d reports: %+v", len(got), got)
		}
		for i, w := range want {
			g := got[i]
			if g.Reason != w.Reason || g.Peer != w.Peer || g.Count != w.Count || g.Event != "token-denied" || g.Flavour != IMDS || g.Correlation == "" {
				t.Errorf("report %d: %+v, want %+v", i, g, w)
			}
		}
		if n := strings.Count(b.logged(), "request refused"); n != len(want) {
			t.Errorf("%d log lines, want %d", n, len(want))
		}
	})
}

func TestDenialsStayBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDenials()
		for i := range 10 * maxDenials {
			d.count(denialKey{alice, fmt.Sprint(i)}, time.Now())
			time.Sleep(time.Millisecond)
		}
		if n := len(d.seen); n != maxDenials {
			t.Errorf("%d are remembered, want %d", n, maxDenials)
		}
		if d.seen[denialKey{alice, fmt.Sprint(10*maxDenials - 1)}] == nil {
			t.Error("the newest was dropped")
		}
	})
}

func TestServedTellsOfEachAnswer(t *testing.T) {
	r := newRig(t, Arc)
	r.ask(tokenURI, "User-Agent: sdk")
	r.get("/nothing")
	want := []Served{
		{Status: 401, Note: "challenge", Resource: vault},
		{Status: 200, Note: "cache", Resource: vault, ClientID: system.ClientID},
		{Status: 404, Note: "not_found", Error: "not_found"},
	}
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.served) != len(want) {
		t.Fatalf("%d answers were told: %+v", len(r.served), r.served)
	}
	for i, w := range want {
		g := r.served[i]
		if g.Status != w.Status || g.Note != w.Note || g.Error != w.Error || g.Resource != w.Resource || g.ClientID != w.ClientID ||
			g.Peer != alice || g.Flavour != Arc || g.Listener != r.addr || g.Method != "GET" || g.Time.IsZero() {
			t.Errorf("answer %d: %+v, want %+v", i, g, w)
		}
	}
	if r.served[0].Agent != "sdk" || r.served[2].Correlation == "" {
		t.Errorf("got %+v", r.served)
	}
}
