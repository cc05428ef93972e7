package endpoint

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent/challenge"
	"postern/agent/credential"
	"postern/agent/token"
	"postern/platform"
	"postern/platform/platformtest"
	"postern/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	alice = platform.Peer("uid:1001")
	bob   = platform.Peer("uid:1002")

	// canary is planted as the token value and as the reason of errors: it may
	// stand in a 200 and nowhere else.
	canary = "eyJ0eXAiOiJKV1QifQ.eyJjYW5hcnkiOiJ5ZXMifQ.c2lnbmF0dXJl"

	vault    = "https://vault.azure.net"
	tokenURI = pathToken + "?api-version=2020-06-01&resource=" + vault
)

var system = credential.Identity{
	Kind: credential.SystemAssigned, Name: "gw-0042",
	ClientID: "7b1e6a0e-7f1a-4f0e-9c55-0c1f6a7d2b11", ObjectID: "11111111-2222-4333-8444-555555555555",
	TenantID: "99999999-8888-4777-8666-555555555555", ResourceID: "/subscriptions/S/resourceGroups/R/providers/P/machines/gw-0042",
}

// stub is a Broker of which a test decides each answer.
type stub struct {
	mu       sync.Mutex
	resolve  func(credential.Selector) (credential.Standing, error)
	token    func(context.Context, token.Request) (token.Token, error)
	requests []token.Request
	selected []credential.Selector
}

func (s *stub) Resolve(sel credential.Selector) (credential.Standing, error) {
	s.mu.Lock()
	s.selected = append(s.selected, sel)
	resolve := s.resolve
	s.mu.Unlock()
	if resolve != nil {
		return resolve(sel)
	}
	return credential.Standing{Identity: system}, nil
}

func (s *stub) Token(ctx context.Context, r token.Request) (token.Token, error) {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	get := s.token
	s.mu.Unlock()
	if get != nil {
		return get(ctx, r)
	}
	return goodToken(r), nil
}

// answer sets what Token does from now on; nil is a good token.
func (s *stub) answer(get func(context.Context, token.Request) (token.Token, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = get
}

func (s *stub) fail(err error) {
	s.answer(func(context.Context, token.Request) (token.Token, error) { return token.Token{}, err })
}

func (s *stub) asked() []token.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]token.Request(nil), s.requests...)
}

func goodToken(r token.Request) token.Token {
	return token.Token{
		Value: store.NewSecret(canary), Identity: system, Resource: r.Resource,
		Remaining: 86399*time.Second + 900*time.Millisecond,
		ExpiresOn: time.Unix(1795434561, 0), NotBefore: time.Unix(1795347861, 0), FromCache: true,
	}
}

// literalHost is a Sim whose clients know the token directory by its real name.
type literalHost struct{ *platformtest.Sim }

func (h literalHost) Dirs() platform.Dirs {
	dirs := h.Sim.Dirs()
	dirs.TokensLiteral = "/var/opt/azcmagent/tokens"
	return dirs
}

// rig is a Server on one real socket.
type rig struct {
	t       testing.TB
	flavour Flavour
	server  *Server
	stub    *stub
	keeper  *challenge.Keeper
	tokens  string // the real token directory
	addr    string
	stop    func()

	mu      sync.Mutex
	peer    platform.Peer
	denials []Denial
	served  []Served
	log     bytes.Buffer
}

// setPeer says who connects from now on.
func (r *rig) setPeer(p platform.Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peer = p
}

func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *rig) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

func (r *rig) denied() []Denial {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Denial(nil), r.denials...)
}

// newRig serves one flavour to alice; change, if given, may alter the options.
func newRig(t testing.TB, flavour Flavour, change ...func(*Options)) *rig {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newRigOn(t, flavour, l, change...)
}

func newRigOn(t testing.TB, flavour Flavour, l net.Listener, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, flavour: flavour, stub: &stub{}, peer: alice, addr: l.Addr().String()}
	o := r.options()
	for _, c := range change {
		c(&o)
	}
	var err error
	if r.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	r.serve(l)
	return r
}

func (r *rig) options() Options {
	r.t.Helper()
	host := literalHost{platformtest.NewSim(r.t)}
	r.tokens = host.Dirs().Tokens
	keeper, err := challenge.New(challenge.Options{Host: host, Poll: true})
	if err != nil {
		r.t.Fatal(err)
	}
	r.keeper = keeper
	return Options{
		Tokens: r.stub, Keeper: keeper, StateDir: "/var/lib/postern",
		Peer: func(net.Conn) platform.Peer {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.peer
		},
		MayIMDS:   func(p platform.Peer) bool { return p == alice },
		Workloads: []*Workload{NewWorkload("web", Digest(store.NewSecret(webSecret)))},
		Log:       slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Audit: func(d Denial) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.denials = append(r.denials, d)
		},
		Served: func(s Served) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.served = append(r.served, s)
		},
	}
}

const webSecret = "c2VjcmV0LW9mLXRoZS13ZWItd29ya2xvYWQtMjU2LWI"

// serve runs the server until the test ends.
func (r *rig) serve(l net.Listener) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- r.server.Serve(ctx, Listener{Listener: l, Flavour: r.flavour, Hosts: []string{"gateway.local"}, Workload: "web"})
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("serve: %v", err)
		}
	})
	r.t.Cleanup(func() {
		r.stop()
		if strings.Contains(r.logged(), canary) {
			r.t.Error("a token stands in the log")
		}
	})
}

// port is the port of the rig.
func (r *rig) port() string {
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	return port
}
