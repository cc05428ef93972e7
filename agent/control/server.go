package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"postern/agent/token"
	"postern/platform"
)

// Limits of the control socket.
const (
	maxConnections        = 16
	maxConnectionsPerPeer = 8
	maxRequest            = 64 << 10
	maxOnboarding         = 1 << 20
	callTimeout           = 30 * time.Second
	stopTimeout           = 5 * time.Second
)

// Agent is what the running agent lets the control room ask for. All methods
// are safe for concurrent use. Errors are shown to the caller as they are:
// they hold no secret.
type Agent interface {
	// Status is everything; the server takes away what the caller may not see.
	Status() Status
	// Token answers as the endpoint would, grants included.
	Token(ctx context.Context, r TokenRequest, caller token.Caller) (TokenAnswer, error)
	// Workload makes, or with rotate replaces, the secret of a workload.
	Workload(name string, rotate bool) (Workload, error)
	// Connect, Disconnect, Renew, Adopt and Reset change the device;
	// step is called with one line per step taken.
	Connect(ctx context.Context, r ConnectRequest, step func(string)) error
	Disconnect(ctx context.Context, localOnly bool, step func(string)) error
	Renew(ctx context.Context, clientID string, step func(string)) error
	Adopt(ctx context.Context, step func(string)) error
	Reset(ctx context.Context, what string, step func(string)) error
	// Probe calls the authority once, for check; it changes nothing there.
	Probe(ctx context.Context) Probe
	// Audit calls f with each record from seq on, one JSON line each, and with
	// follow waits for new ones until ctx ends.
	Audit(ctx context.Context, from uint64, follow bool, f func(line []byte) error) error
}

// Server serves the control socket.
type Server struct {
	agent  Agent
	host   platform.Host
	group  string
	log    *slog.Logger
	mu     sync.Mutex
	counts map[platform.Peer]int
	total  int
}

// NewServer returns a server for agent. group is the token group, whose
// members may ask for tokens.
func NewServer(agent Agent, host platform.Host, group string, log *slog.Logger) *Server {
	return &Server{agent: agent, host: host, group: group, log: log, counts: map[platform.Peer]int{}}
}

type peerKey struct{}

// Serve answers on l until ctx ends, then waits up to 5 s for what is in
// flight. It closes l and returns nil after ctx ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       callTimeout,
		IdleTimeout:       callTimeout,
		MaxHeaderBytes:    4096,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			peer := platform.Unknown
			if limited, ok := c.(*limitedConn); ok {
				peer = limited.peer
			}
			return context.WithValue(ctx, peerKey{}, peer)
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(late) != nil {
			_ = srv.Close() // an open stream (audit -f) ends here
		}
	}()
	err := srv.Serve(&limitedListener{Listener: l, server: s})
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return err
}

// limitedListener keeps one account from taking all connections.
type limitedListener struct {
	net.Listener
	server *Server
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := l.server.host.Peer(c)
		if l.server.enter(peer) {
			return &limitedConn{Conn: c, peer: peer, server: l.server}, nil
		}
		_ = c.Close()
	}
}

func (s *Server) enter(p platform.Peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxConnections || s.counts[p] >= maxConnectionsPerPeer {
		return false
	}
	s.total++
	s.counts[p]++
	return true
}

func (s *Server) leave(p platform.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.counts[p]--; s.counts[p] <= 0 {
		delete(s.counts, p)
	}
}

type limitedConn struct {
	net.Conn
	peer   platform.Peer
	server *Server
	once   sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { c.server.leave(c.peer) })
	return c.Conn.Close()
}
