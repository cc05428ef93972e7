package endpoint

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"postern/platform"
)

// gate accepts connections within the limits and finds out who they are.
type gate struct {
	net.Listener
	front  *front
	once   sync.Once
	closed chan struct{}
	err    error // of closing; written once
}

// Accept returns the next connection that may be served.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if own := g.admit(c); own != nil {
			return own, nil
		}
	}
}

// Close closes the listener; a newcomer that waits for a place is let go.
func (g *gate) Close() error {
	g.once.Do(func() {
		close(g.closed)
		g.err = g.Listener.Close()
	})
	return g.err
}

// admit asks for the peer while the connection is open, before a byte of it is
// read, and applies the limits; nil if the connection was refused.
func (g *gate) admit(c net.Conn) *conn {
	f := g.front
	if f.local && !fromThisMachine(c) {
		f.s.denials.report(f.s, Denial{
			Event: "token-denied", Reason: "guard: not of this machine", Flavour: f.flavour, Listener: f.name,
		})
		_ = c.Close() // not one byte for the network (T7)
		return nil
	}
	own := &conn{Conn: c, limits: f.s.limits, gate: g}
	if f.s.o.Peer != nil {
		own.peer = f.s.o.Peer(c)
	}
	own.share = own.peer
	if f.workload != nil {
		own.share = f.workload.peer() // behind NAT the account means nothing
	}
	if !own.limits.join(own.share) {
		f.s.denials.report(f.s, Denial{
			Event: "token-denied", Reason: "guard: too many connections", Flavour: f.flavour, Listener: f.name, Peer: own.share,
		})
		f.s.turnAway(c)
		return nil
	}
	if !own.limits.place(own, g.closed) {
		_ = own.Close() // we are stopping
		return nil
	}
	return own
}

// fromThisMachine reports whether c comes from an address of this machine.
// Addresses that are not IP are not believed.
func fromThisMachine(c net.Conn) bool {
	remote, ok := ipOf(c.RemoteAddr())
	if !ok {
		return false
	}
	if remote.IsLoopback() {
		return true
	}
	if own, ok := ipOf(c.LocalAddr()); ok && own == remote {
		return true // such as 169.254.169.254 over its local route
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == remote {
			return true
		}
	}
	return false
}

func ipOf(a net.Addr) (netip.Addr, bool) {
	if a == nil {
		return netip.Addr{}, false
	}
	p, err := netip.ParseAddrPort(a.String())
	return p.Addr().Unmap().WithZone(""), err == nil
}

// turnedAway is the whole answer to a connection beyond its peer's share. It is
// sent without reading the request, which may never come.
var turnedAway = fixedAnswer()

func fixedAnswer() []byte {
	const body = `{"error":"too_many_requests","error_description":"Too many connections of one account. Close idle ones, then try again: postern status"}`
	return []byte("HTTP/1.1 429 Too Many Requests\r\n" +
		"Cache-Control: no-store\r\n" +
		"Connection: close\r\n" +
		"Content-Length: " + strconv.Itoa(len(body)) + "\r\n" +
		"Content-Type: " + typeJSON + "\r\n" +
		"Cross-Origin-Resource-Policy: same-origin\r\n" +
		"Retry-After: 1\r\n" +
		"X-Content-Type-Options: nosniff\r\n\r\n" + body)
}

// turnAway answers 429 and closes c. A few at a time are read until the client
// has closed too, since a close with unread input may take the answer with it.
func (s *Server) turnAway(c net.Conn) {
	deadline := time.Now().Add(lingerTime)
	if !s.limits.linger() {
		_ = c.SetDeadline(deadline) // if it fails, so does the write
		_, _ = c.Write(turnedAway)  // fits an empty send buffer; nobody to tell otherwise
		_ = c.Close()
		return
	}
	go func() {
		defer s.limits.lingered()
		_ = c.SetDeadline(deadline)
		_, _ = c.Write(turnedAway)
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(c, maxHeaderBytes))
		_ = c.Close()
	}()
}

// Compile-time proof that net/http finds CloseWrite.
var _ interface{ CloseWrite() error } = (*conn)(nil)

// peer is the principal that the holder of a workload's secret is.
func (w *Workload) peer() platform.Peer { return platform.Peer("workload:" + w.name) }
