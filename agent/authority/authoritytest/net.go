package authoritytest

import (
	"context"
	"net"
	"sync"
)

// Net is a network in memory: connections are buffers, names are what was
// listened on. The zero value has no hosts. Safe for concurrent use.
type Net struct {
	mu    sync.Mutex
	hosts map[string]*pipeListener
	seen  []string
}

// Listen takes the address, "host:port". The listener ends when it is closed.
func (n *Net) Listen(address string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts == nil {
		n.hosts = map[string]*pipeListener{}
	}
	l := &pipeListener{net: n, address: pipeAddr(address), conns: make(chan net.Conn), done: make(chan struct{})}
	n.hosts[address] = l
	return l
}

// Dial connects to what listens on address. It fits authority.Config.Dial.
// An address on which nothing ever listened is a name that does not exist.
func (n *Net) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	n.seen = append(n.seen, address)
	l := n.hosts[address]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: address, IsNotFound: true}}
	}
	ours, theirs := newPipe(pipeAddr("192.0.2.1:40000"), l.address)
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: network, Addr: l.address, Err: errRefused}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: network, Addr: l.address, Err: ctx.Err()}
	}
}

// Dialled returns every address that was dialled, in order.
func (n *Net) Dialled() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.seen...)
}

type refusedError struct{}

func (refusedError) Error() string { return "connection refused" }

var errRefused error = refusedError{}

type pipeAddr string

func (pipeAddr) Network() string  { return "tcp" }
func (a pipeAddr) String() string { return string(a) }

type pipeListener struct {
	net     *Net
	address pipeAddr
	conns   chan net.Conn
	once    sync.Once
	done    chan struct{}
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; the address refuses connections from then on.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return l.address }
