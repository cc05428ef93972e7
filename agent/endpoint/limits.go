package endpoint

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"postern/platform"
)

// Limits of connections, firmware-notes/limits.md.
const (
	maxConnections = 128
	maxPerPeer     = 32 // unknown callers are one peer
	maxLingering   = 32 // refused connections that are drained before they are closed
	lingerTime     = 250 * time.Millisecond
)

// limits counts the connections of all listeners. Nothing that is being served
// is closed for a newcomer.
type limits struct {
	max   int
	share int // of one peer

	mu        sync.Mutex
	conns     map[*conn]http.ConnState // guarded by mu
	idle      map[*conn]uint64         // when it became idle, in steps of clock; guarded by mu
	clock     uint64                   // guarded by mu
	perPeer   map[platform.Peer]int    // guarded by mu
	lingering int                      // guarded by mu
	freed     chan struct{}            // capacity 1: a place may be free
}

func newLimits(most int) *limits {
	if most <= 0 || most > maxConnections {
		most = maxConnections
	}
	return &limits{
		max: most, share: max(1, min(maxPerPeer, most/4)), conns: make(map[*conn]http.ConnState), idle: make(map[*conn]uint64),
		perPeer: make(map[platform.Peer]int), freed: make(chan struct{}, 1),
	}
}

func (l *limits) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// join counts c towards its peer; false if the peer has all it may have.
func (l *limits) join(p platform.Peer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perPeer[p] >= l.share {
		return false
	}
	l.perPeer[p]++
	return true
}

func (l *limits) leave(p platform.Peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perPeer[p]--; l.perPeer[p] <= 0 {
		delete(l.perPeer, p)
	}
}

// place waits until c may be served. Beyond the bound an idle connection is
// closed first, the one that has been idle longest; without one, the newcomer
// waits, and with it whoever connects after it.
func (l *limits) place(c *conn, closed <-chan struct{}) bool {
	for {
		placed, evicted := l.tryPlace(c)
		if evicted != nil {
			_ = evicted.Close() // idle: there is nobody to tell
		}
		if placed {
			return true
		}
		if evicted != nil {
			continue
		}
		select {
		case <-l.freed:
		case <-closed:
			return false
		}
	}
}

func (l *limits) tryPlace(c *conn) (placed bool, evicted *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) < l.max {
		l.conns[c] = http.StateNew
		l.wake() // another listener may be waiting for the next place
		return true, nil
	}
	for idle, since := range l.idle {
		if evicted == nil || since < l.idle[evicted] {
			evicted = idle
		}
	}
	return false, evicted
}

// wake tells whoever waits in place to look again; mu is held.
func (l *limits) wake() {
	select {
	case l.freed <- struct{}{}:
	default:
	}
}

// mark follows the state of a connection.
func (l *limits) mark(c *conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, placed := l.conns[c]; !placed {
		return
	}
	l.conns[c] = state
	delete(l.idle, c)
	if state == http.StateIdle {
		l.clock++
		l.idle[c] = l.clock
		l.wake()
	}
}

// remove gives the place and the peer's share back.
func (l *limits) remove(c *conn) {
	l.mu.Lock()
	_, placed := l.conns[c]
	delete(l.conns, c)
	delete(l.idle, c)
	if placed {
		l.wake()
	}
	l.mu.Unlock()
	l.leave(c.share)
}

// closeUnasked closes the connections of g on which no request was begun.
func (l *limits) closeUnasked(g *gate) {
	var unasked []*conn
	l.mu.Lock()
	for c, state := range l.conns {
		if c.gate == g && state == http.StateNew {
			unasked = append(unasked, c)
		}
	}
	l.mu.Unlock()
	for _, c := range unasked {
		_ = c.Close() // nobody asked anything
	}
}

// linger takes a place among the refused connections that are drained.
func (l *limits) linger() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lingering >= maxLingering {
		return false
	}
	l.lingering++
	return true
}

func (l *limits) lingered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lingering--
}

// conn is an accepted connection with what was found out about it.
type conn struct {
	net.Conn
	limits *limits
	gate   *gate
	peer   platform.Peer // who is at the other end
	share  platform.Peer // whom it counts for: the peer, or the workload
	once   sync.Once

	// What MayIMDS said last, and when. Requests of one connection come one
	// after another.
	mayIMDS bool
	asked   time.Time

	armed bool // a write deadline stands; used by the serving goroutine alone
}

// Write gives every answer writeTime from its first byte, those that net/http
// sends by itself included: a client that never reads must not keep its place
// (Server.WriteTimeout would count the wait for the authority).
func (c *conn) Write(b []byte) (int, error) {
	if !c.armed {
		if err := c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// SetWriteDeadline is how net/http ends an answer: with the zero time.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.armed = !t.IsZero()
	return c.Conn.SetWriteDeadline(t)
}

// Close closes the connection and gives its place back.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.limits.remove(c) })
	return err
}

// CloseWrite lets net/http end its side first, so that a refusal is read.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn returns the connection below.
func (c *conn) NetConn() net.Conn { return c.Conn }
