package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postern/platform"
)

// Limits of one request, firmware-notes/limits.md.
const (
	// maxHeaderBytes is 8 KiB less the slack that net/http adds (8,192 bytes
	// pass, 8,400 get 431: measured).
	maxHeaderBytes = 4096
	headerTime     = 5 * time.Second  // to send a request
	idleTime       = 30 * time.Second // between two requests
	writeTime      = 10 * time.Second // to take an answer
	stopGrace      = 4500 * time.Millisecond
)

// imdsAddress is the address of instance metadata services.
var imdsAddress = netip.AddrFrom4([4]byte{169, 254, 169, 254})

// front is the Server as it answers on one listener.
type front struct {
	s        *Server
	flavour  Flavour
	workload *Workload
	name     string // the caller's "listener": "127.0.0.1:40342", "workload:web"
	hosts    map[string]struct{}
	local    bool // only peers of this machine may connect
}

// front checks l: an address that the network could reach is a configuration
// error (T7; TestListenerThatTheNetworkReachesIsRefused).
func (s *Server) front(l Listener) (*front, error) {
	if l.Listener == nil {
		return nil, errors.New("endpoint: no listener")
	}
	addr, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("endpoint: listener %v: want an address and a port", l.Addr())
	}
	ip := addr.Addr().Unmap()
	f := &front{s: s, flavour: l.Flavour, name: l.Addr().String(), local: true}
	switch l.Flavour {
	case Arc:
		if !ip.IsLoopback() || s.o.Keeper == nil {
			return nil, fmt.Errorf("endpoint: listener %v: the Arc flavour needs a loopback address and a keeper", addr)
		}
	case IMDS:
		if !ip.IsLoopback() && ip != imdsAddress {
			return nil, fmt.Errorf("endpoint: listener %v: the IMDS flavour needs a loopback address or %v", addr, imdsAddress)
		}
	case AppService:
		if ip.IsUnspecified() {
			return nil, fmt.Errorf("endpoint: listener %v: a workload needs the address of one interface", addr)
		}
		if f.workload, err = s.workload(l.Workload); err != nil {
			return nil, err
		}
		f.name, f.local = string(f.workload.peer()), ip.IsLoopback()
	default:
		return nil, fmt.Errorf("endpoint: listener %v: no flavour is called %q", addr, l.Flavour)
	}
	f.hosts = allowedHosts(l, ip, addr.Port())
	return f, nil
}

// allowedHosts are the values of Host that this listener answers to. A name
// that an attacker's DNS could lead here is not among them: that, and not a
// comparison with Origin, stops DNS rebinding (T5).
func allowedHosts(l Listener, ip netip.Addr, port uint16) map[string]struct{} {
	names := []string{"localhost", "127.0.0.1", "[::1]", imdsAddress.String()}
	for _, name := range l.Hosts {
		if strings.Contains(name, ":") { // an IPv6 address
			name = "[" + name + "]"
		}
		names = append(names, name)
	}
	if l.Flavour == AppService {
		own := ip.String()
		if ip.Is6() {
			own = "[" + own + "]"
		}
		names = append(names, own)
	}
	hosts := make(map[string]struct{}, 2*len(names))
	suffix := ":" + strconv.Itoa(int(port))
	for _, name := range names {
		hosts[name] = struct{}{}
		hosts[name+suffix] = struct{}{}
	}
	return hosts
}

// Serve answers on l until ctx ends, then lets answers in flight finish, for at
// most 5 s, and returns nil. It closes l. Any other return is an error of the
// listener. Call it once for each listener, at the same time.
func (s *Server) Serve(ctx context.Context, l Listener) error {
	f, err := s.front(l)
	if err != nil {
		if l.Listener != nil {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	gate := &gate{Listener: l.Listener, front: f, closed: make(chan struct{})}
	server := f.server(ctx)
	stopped := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(stopped)
		f.stop(server, gate)
	})
	err = server.Serve(gate)
	if release() { // ctx has not ended: the listener broke
		return errors.Join(fmt.Errorf("endpoint: listener %s: %w", f.name, err), server.Close())
	}
	<-stopped
	return nil
}

func (f *front) server(ctx context.Context) *http.Server {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Server{
		Handler:        f,
		Protocols:      &http1, // no h2c
		MaxHeaderBytes: maxHeaderBytes,
		// Also for a body, which is refused and only drained: without it a
		// client could hold its connection open by sending one byte a minute.
		ReadTimeout:                  headerTime,
		ReadHeaderTimeout:            headerTime,
		IdleTimeout:                  idleTime,
		DisableGeneralOptionsHandler: true, // it would answer "OPTIONS *" with 200
		ErrorLog:                     slog.NewLogLogger(f.s.log.Handler(), slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if own, ok := c.(*conn); ok {
				own.limits.mark(own, state)
			}
		},
	}
}

// stop ends the front: nothing new, what was not asked yet is closed, what is
// being answered has until the grace ends.
func (f *front) stop(server *http.Server, g *gate) {
	_ = g.Close() // Shutdown closes it again and reports
	f.s.limits.closeUnasked(g)
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		f.s.log.Debug("answers in flight were cut", "listener", f.name, "reason", err)
		_ = server.Close() // nothing is left to do about an error here
	}
}

// connKey finds the connection in a request's context.
type connKey struct{}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// caller is the account behind a connection; Unknown without one.
func (c *conn) caller() platform.Peer {
	if c == nil {
		return platform.Unknown
	}
	return c.peer
}
