package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// link is the network between device and authority. It can be cut.
type link struct {
	mu     sync.Mutex
	mode   string // "" up, "refused", "silent"
	open   map[net.Conn]bool
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
	dials  atomic.Int64
	dialed func() // told of every try
}

func newLink() *link {
	return &link{open: map[net.Conn]bool{}, accept: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *link) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *link) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *link) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 10), Port: 8443} }

func (l *link) up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode == ""
}

// set cuts or restores the link; connections do not survive a cut.
func (l *link) set(mode string) {
	l.mu.Lock()
	l.mode = mode
	var broken []net.Conn
	if mode != "" {
		for c := range l.open {
			broken = append(broken, c)
		}
		clear(l.open)
	}
	l.mu.Unlock()
	for _, c := range broken {
		_ = c.Close()
	}
}

func (l *link) dial(ctx context.Context, _, address string) (net.Conn, error) {
	l.dials.Add(1)
	if l.dialed != nil {
		l.dialed()
	}
	l.mu.Lock()
	mode := l.mode
	l.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: l.Addr(), Err: syscall.ECONNREFUSED}
	switch mode {
	case "refused":
		return nil, refused
	case "silent":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if address != "authority.sim:8443" {
		return nil, fmt.Errorf("dial %s: no such host", address)
	}
	here, there := net.Pipe()
	l.mu.Lock()
	l.open[here], l.open[there] = true, true
	l.mu.Unlock()
	forget := func(c net.Conn) func() {
		return func() { l.mu.Lock(); delete(l.open, c); l.mu.Unlock() }
	}
	select {
	case l.accept <- &linked{there, forget(there)}:
		return &linked{here, forget(here)}, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	return nil, refused
}

type linked struct {
	net.Conn
	left func()
}

func (c *linked) Close() error {
	c.left()
	return c.Conn.Close()
}

func (c *linked) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 42), Port: 50000} }
