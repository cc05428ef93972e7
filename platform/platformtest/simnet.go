package platformtest

import (
	"context"
	"fmt"
	"net"
	"sync"

	"postern/platform"
)

// listener is a net.Listener over pipes in memory.
type listener struct {
	addr  simAddr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
	leave func()
}

// simAddr is an address on the simulated machine. TCP ones parse as such.
type simAddr struct{ network, address string }

func (a simAddr) Network() string { return a.network }
func (a simAddr) String() string  { return a.address }

// netAddr is the *net.TCPAddr or *net.UnixAddr that callers look into.
func (a simAddr) netAddr() net.Addr {
	switch a.network {
	case "tcp4", "tcp6":
		if addr, err := net.ResolveTCPAddr(a.network, a.address); err == nil { // a literal: nothing is resolved
			return addr
		}
	case "unix":
		return &net.UnixAddr{Name: a.address, Net: "unix"}
	}
	return a
}

// client is the address that a caller of this listener has.
func (a simAddr) client() net.Addr {
	switch a.network {
	case "tcp4":
		a.address = "127.0.0.1:50000"
	case "tcp6":
		a.address = "[::1]:50000"
	default:
		a.address = "@"
	}
	return a.netAddr()
}

// simConn is one end of a connection, with addresses.
type simConn struct {
	net.Conn
	local, remote net.Addr
	dialledAs     *platform.Peer // who sits at the other end, if Dial said so
}

func (c *simConn) LocalAddr() net.Addr  { return c.local }
func (c *simConn) RemoteAddr() net.Addr { return c.remote }

// Listen opens a listener that Dial reaches by its address or its name.
// platform.ErrPortTaken if the address is in use.
func (s *Sim) Listen(_ context.Context, l platform.Listener) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.network[l.Address] != nil {
		return nil, fmt.Errorf("listen %s: %w by uid %d", l.Address, platform.ErrPortTaken, SimUID)
	}
	ln := &listener{
		addr:  simAddr{l.Network, l.Address},
		conns: make(chan net.Conn),
		done:  make(chan struct{}),
	}
	names := []string{l.Address}
	if l.Name != "" && s.network[l.Name] == nil {
		names = append(names, l.Name)
	}
	for _, n := range names {
		s.network[n] = ln
	}
	ln.leave = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, n := range names {
			if s.network[n] == ln {
				delete(s.network, n)
			}
		}
	}
	return ln, nil
}

// Dial connects to a listener by address ("127.0.0.1:40342") or by name
// ("arc"). It fits http.Transport.DialContext; the network is not looked at.
func (s *Sim) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	return s.dial(ctx, address, nil)
}

// DialAs is Dial by a caller whom Peer reports as p.
func (s *Sim) DialAs(p platform.Peer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) { return s.dial(ctx, address, &p) }
}

func (s *Sim) dial(ctx context.Context, address string, p *platform.Peer) (net.Conn, error) {
	s.mu.Lock()
	ln := s.network[address]
	s.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "sim", Addr: simAddr{"sim", address}, Err: fmt.Errorf("connection refused")}
	if ln == nil {
		return nil, refused
	}
	here, there := net.Pipe()
	client := ln.addr.client()
	accepted := &simConn{Conn: there, local: ln.Addr(), remote: client, dialledAs: p}
	select {
	case ln.conns <- accepted:
		return &simConn{Conn: here, local: client, remote: ln.Addr()}, nil
	case <-ln.done:
	case <-ctx.Done():
		refused.Err = ctx.Err()
	}
	_ = here.Close()
	_ = there.Close()
	return nil, refused
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: l.addr.network, Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.leave()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr.netAddr() }
