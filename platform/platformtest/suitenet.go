package platformtest

import (
	"context"
	"net"
	"testing"

	"postern/platform"
)

// dialer is how a simulated machine is reached; a real one by the net package.
type dialer interface {
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

func (s suite) dialer() dialer {
	if d, ok := s.Host.(dialer); ok {
		return d
	}
	return realNetwork{}
}

type realNetwork struct{}

func (realNetwork) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// connect makes a connection to ln and returns both ends.
func (s suite) connect(t *testing.T, ln net.Listener) (client, server net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	client, err := s.dialer().Dial(t.Context(), ln.Addr().Network(), ln.Addr().String())
	must(t, err)
	server = <-accepted
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

func (s suite) listen(t *testing.T, l platform.Listener) net.Listener {
	t.Helper()
	ln, err := s.Listen(t.Context(), l)
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func listenPeer(t *testing.T, s suite) {
	for _, l := range []platform.Listener{
		{Name: "arc", Network: "tcp4", Address: "127.0.0.1:0", Loopback: true},
		{Name: "control", Network: "unix", Address: s.path("control.sock")},
	} {
		t.Run(l.Network, func(t *testing.T) {
			client, server := s.connect(t, s.listen(t, l))
			p := s.Peer(server)
			if _, ok := p.UID(); !ok {
				t.Errorf("peer is %v, want a user", p)
			}
			must(t, client.Close())
		})
	}
}

func listenTaken(t *testing.T, s suite) {
	for _, l := range []platform.Listener{
		{Name: "arc", Network: "tcp4", Address: "127.0.0.1:0", Loopback: true},
		{Name: "control", Network: "unix", Address: s.path("control.sock")},
	} {
		ln := s.listen(t, l)
		l.Address = ln.Addr().String()
		_, err := s.Listen(t.Context(), l)
		wantIs(t, err, platform.ErrPortTaken)
		must(t, ln.Close())
		again, err := s.Listen(t.Context(), l)
		must(t, err)
		must(t, again.Close())
	}
}
