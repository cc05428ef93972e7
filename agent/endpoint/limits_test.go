package endpoint

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/token"
	"postern/platform"
	"postern/platform/platformtest"
)

// bubble is a server on pipes, inside a synctest bubble.
type bubble struct {
	*rig
	sim    *platformtest.Sim
	cancel context.CancelFunc
	done   chan error
}

const bubbleAddress = "127.0.0.1:40342"

func inBubble(t *testing.T, flavour Flavour, body func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, flavour: flavour, stub: &stub{}, peer: alice, addr: bubbleAddress}
		sim := platformtest.NewSim(t)
		o := r.options()
		o.Peer = sim.Peer
		var err error
		if r.server, err = New(o); err != nil {
			t.Fatal(err)
		}
		l, err := sim.Listen(t.Context(), platform.Listener{Name: "arc", Network: "tcp4", Address: bubbleAddress})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		b := &bubble{rig: r, sim: sim, cancel: cancel, done: make(chan error, 1)}
		go func() { b.done <- r.server.Serve(ctx, Listener{Listener: l, Flavour: flavour, Workload: "web"}) }()
		synctest.Wait()
		body(t, b)
		cancel()
		if err := <-b.done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// connect opens a connection as a peer, without sending anything.
func (b *bubble) connect(p platform.Peer) *line {
	b.t.Helper()
	c, err := b.sim.DialAs(p)(context.Background(), "tcp", bubbleAddress)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	l := newLine(b.t, c)
	_ = c.SetDeadline(time.Time{})
	synctest.Wait()
	return l
}

// over reports whether the server has closed l, without waiting for it.
func over(l *line) bool {
	_ = l.c.SetReadDeadline(time.Now())
	_, err := l.r.Peek(1)
	_ = l.c.SetReadDeadline(time.Time{})
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)
}

func TestLimitsAreWhatIsPromised(t *testing.T) {
	for name, got := range map[string][2]time.Duration{
		"connections": {maxConnections, 128}, "per peer": {maxPerPeer, 32}, "header": {headerTime, 5 * time.Second}, "idle": {idleTime, 30 * time.Second},
		"write": {writeTime, 10 * time.Second}, "header bytes": {maxHeaderBytes, 4096}, "resource": {maxResource, 2048}, "value": {maxValue, 1024},
		"query": {maxQuery, 6144}, "authorization": {maxAuthorization, 256}, "failures": {maxFailures, 10}, "old secret": {oldSecretLife, 10 * time.Minute},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %d, want %d", name, got[0], got[1])
		}
	}
}

func TestHalfARequestIsClosedAfter5Seconds(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		silent, half := b.connect(alice), b.connect(alice)
		half.send("GET / HTTP/1.1\r\nHost: loc")
		time.Sleep(headerTime - time.Millisecond)
		synctest.Wait()
		if over(silent) || over(half) {
			t.Error("closed too early")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if !over(silent) || !over(half) {
			t.Error("not closed after 5 s")
		}
		if n := b.server.Connections(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestSlowlorisOneByteASecondIsClosedAfter5Seconds(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		l := b.connect(alice)
		go func() { _, _ = io.Copy(io.Discard, l.c) }()
		start := time.Now()
		for i := range 60 {
			if _, err := io.WriteString(l.c, request(tokenURI)[i:i+1]); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(start); d > headerTime+time.Second {
			t.Errorf("closed after %v", d)
		}
	})
}

func TestSlowBodyIsClosedAfter5Seconds(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		for _, method := range []string{"GET", "POST"} {
			l := b.connect(alice)
			start := time.Now()
			rep := l.ask(method, method+" "+tokenURI+" HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\nContent-Length: 100000\r\n\r\n")
			if rep.StatusCode/100 != 4 || time.Since(start) > 0 {
				t.Errorf("%s: %d after %v, want the refusal at once", method, rep.StatusCode, time.Since(start))
			}
			for {
				if _, err := io.WriteString(l.c, "x"); err != nil {
					break
				}
				time.Sleep(time.Second)
			}
			if d := time.Since(start); d > headerTime+2*time.Second {
				t.Errorf("%s: closed after %v", method, d)
			}
		}
	})
}

// What net/http answers by itself has a time limit too.
func TestRefusalThatIsNotReadIsGivenUpAfter10Seconds(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		l := b.connect(alice)
		l.send("NONSENSE\r\n\r\n")
		time.Sleep(writeTime + time.Millisecond)
		synctest.Wait()
		if n := b.server.Connections(); n != 0 {
			t.Errorf("%d connections after 10 s", n)
		}
	})
}

func TestIdleConnectionIsClosedAfter30Seconds(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		l := b.connect(alice)
		l.ask(http.MethodGet, request(tokenURI))
		time.Sleep(idleTime - time.Millisecond)
		synctest.Wait()
		if over(l) {
			t.Error("closed too early")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if !over(l) {
			t.Error("not closed after 30 s")
		}
	})
}

// The time limits are for the client, not for the authority: a fetch of 19 s is
// answered.
func TestSlowFetchIsAnswered(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		b.stub.answer(func(ctx context.Context, q token.Request) (token.Token, error) {
			select {
			case <-time.After(19 * time.Second):
				return goodToken(q), nil
			case <-ctx.Done():
				return token.Token{}, ctx.Err()
			}
		})
		l := b.connect(alice)
		b.must(l.ask(http.MethodGet, request(tokenURI)), http.StatusOK, canary)
	})
}

func TestAnswerThatIsNotReadIsGivenUpAfter10Seconds(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		l := b.connect(alice)
		l.send(request(tokenURI))
		synctest.Wait() // the answer blocks: nobody reads the pipe
		time.Sleep(writeTime - time.Millisecond)
		synctest.Wait()
		if n := b.server.Connections(); n != 1 {
			t.Errorf("%d connections before the limit", n)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := b.server.Connections(); n != 0 {
			t.Errorf("%d connections after it", n)
		}
	})
}

func TestAPeerIsHeldTo32ConnectionsAndOthersAreServed(t *testing.T) {
	for _, p := range []platform.Peer{alice, platform.Unknown} {
		inBubble(t, Arc, func(t *testing.T, b *bubble) {
			var held []*line
			for range maxPerPeer {
				held = append(held, b.connect(p))
			}
			rep := b.connect(p).read(http.MethodGet) // without a request
			if rep.StatusCode != http.StatusTooManyRequests || !rep.Close || !strings.Contains(rep.body, `"too_many_requests"`) || rep.Header.Get("Retry-After") != "1" {
				t.Errorf("connection 33: %d %s", rep.StatusCode, rep.body)
			}
			mustAlwaysSend(t, rep)
			if rep := b.connect(bob).ask(http.MethodGet, request(tokenURI)); rep.StatusCode != http.StatusUnauthorized {
				t.Errorf("another account: %d", rep.StatusCode)
			}
			_ = held[0].c.Close()
			synctest.Wait()
			if rep := b.connect(p).ask(http.MethodGet, request(tokenURI)); rep.StatusCode != http.StatusUnauthorized {
				t.Errorf("after one was closed: %d", rep.StatusCode)
			}
			time.Sleep(time.Second) // what was turned away is let go
		})
	}
}

// fill takes every place, 32 by each of four accounts; ask says whether a
// request is answered on each.
func (b *bubble) fill(ask bool) []*line {
	var held []*line
	for i := range maxConnections {
		l := b.connect(platform.UIDPeer(uint32(5000 + i/maxPerPeer)))
		if ask {
			l.ask(http.MethodGet, request("/metadata/versions"))
		}
		held = append(held, l)
	}
	synctest.Wait()
	return held
}

func TestConnection129TakesThePlaceOfTheLongestIdle(t *testing.T) {
	inBubble(t, Arc, func(t *testing.T, b *bubble) {
		held := b.fill(true)
		held[0].ask(http.MethodGet, request("/metadata/versions")) // now 1 has been idle longest
		if rep := b.connect(alice).ask(http.MethodGet, request(tokenURI)); rep.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %d", rep.StatusCode)
		}
		if !over(held[1]) || over(held[0]) || over(held[2]) {
			t.Error("another connection than the longest idle was closed")
		}
		if n := b.server.Connections(); n != maxConnections {
			t.Errorf("%d connections", n)
		}
	})
}

func TestConnection129WaitsWhileNoneIsIdle(t *testing.T) {
	inBubble(t, Arc, func(t *testing.T, b *bubble) {
		held := b.fill(false)
		waiting := b.connect(alice)
		answered := make(chan reply, 1)
		go func() {
			_, _ = io.WriteString(waiting.c, request(tokenURI))
			rep, err := waiting.tryRead(http.MethodGet)
			if err != nil {
				rep = reply{Response: &http.Response{}}
			}
			answered <- rep
		}()
		synctest.Wait()
		select {
		case rep := <-answered:
			t.Fatalf("served beyond the bound: %d", rep.StatusCode)
		default:
		}
		_ = held[5].c.Close()
		if rep := <-answered; rep.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %d", rep.StatusCode)
		}
	})
}

func TestEP8HalfOpenFloodFromOneAccountLeavesOthersServed(t *testing.T) {
	inBubble(t, Arc, func(t *testing.T, b *bubble) {
		const flood = 2000
		for range flood {
			c, err := b.sim.DialAs(bob)(context.Background(), "tcp", bubbleAddress)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			go func() { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: ") }()
		}
		time.Sleep(time.Second) // a pipe has no buffer: the last that were turned away hold the line for 250 ms
		synctest.Wait()
		start := time.Now()
		key := b.key(b.connect(alice).ask(http.MethodGet, request(tokenURI)))
		b.must(b.connect(alice).ask(http.MethodGet, request(tokenURI, "Authorization: Basic "+key)), http.StatusOK, canary)
		if d := time.Since(start); d >= 250*time.Millisecond {
			t.Errorf("others waited %v", d)
		}
		if n := b.server.Connections(); n > maxPerPeer+2 {
			t.Errorf("%d connections are held by the flood", n)
		}
		time.Sleep(headerTime + time.Second)
		synctest.Wait()
		if n := b.server.Connections(); n > 2 {
			t.Errorf("%d connections are left after 5 s", n)
		}
	})
}

// The same with real sockets, where closing is what the kernel makes of it.
func TestEP8HalfOpenFloodOverRealSockets(t *testing.T) {
	r := newRig(t, Arc, func(o *Options) {
		o.Peer = func(c net.Conn) platform.Peer {
			if strings.HasPrefix(c.RemoteAddr().String(), "127.0.0.2:") {
				return alice
			}
			return bob
		}
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 40 {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					continue
				}
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: ")
				t.Cleanup(func() { _ = c.Close() })
			}
		})
	}
	wg.Wait()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c, err := dialer.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	l := newLine(t, c)
	key := r.key(l.ask(http.MethodGet, request(tokenURI)))
	r.must(l.ask(http.MethodGet, request(tokenURI, "Authorization: Basic "+key)), http.StatusOK, canary)
	if n := r.server.Connections(); n > maxPerPeer+2 {
		t.Errorf("%d connections", n)
	}
}

func TestTurnedAwayClientReadsItsAnswerOverARealSocket(t *testing.T) {
	r := newRig(t, IMDS)
	for range maxPerPeer {
		r.dial().ask(http.MethodGet, request("/metadata/versions"))
	}
	for range 5 {
		rep := r.dial().ask(http.MethodGet, request(tokenURI))
		r.must(rep, http.StatusTooManyRequests, "too_many_requests")
	}
	if d := r.denied(); len(d) != 1 || d[0].Reason != "guard: too many connections" {
		t.Errorf("denials %+v", d)
	}
}
