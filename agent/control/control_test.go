package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/agent/token"
	"postern/platform"
	"postern/platform/platformtest"
)

// Accounts of the tests; platformtest.Sim knows them.
var (
	root     = platform.UIDPeer(0)
	self     = platform.UIDPeer(platformtest.SimUID)
	member   = platform.UIDPeer(1000) // of the token group
	stranger = platform.UIDPeer(4711)
)

// stub is an agent that notes what it was asked.
type stub struct {
	asked []string
	state lifecycle.State
}

func (s *stub) Status() Status {
	return Status{
		Schema: "postern.status/1", State: s.state, Callers: []LastCaller{{Peer: "uid:1001"}},
		Tokens: Tokens{Cached: 1, List: []CachedToken{{Resource: "https://secret.example"}}},
	}
}

func (s *stub) Token(_ context.Context, r TokenRequest, c token.Caller) (TokenAnswer, error) {
	s.asked = append(s.asked, "token "+c.Peer.String())
	return TokenAnswer{AccessToken: "t", Resource: r.Resource}, nil
}

func (s *stub) Workload(name string, _ bool) (Workload, error) {
	s.asked = append(s.asked, "workload")
	return Workload{Secret: name}, nil
}

func (s *stub) Probe(context.Context) Probe {
	s.asked = append(s.asked, "probe")
	return Probe{Done: true}
}

func (s *stub) long(what string, step func(string)) error {
	s.asked = append(s.asked, what)
	step("one step")
	return nil
}

func (s *stub) Connect(_ context.Context, r ConnectRequest, step func(string)) error {
	if r.Claim == "bad" {
		return NewFault(ExitRejected, "claim", "make a new one", "connect: %w", errors.New("the claim was used"))
	}
	return s.long("connect", step)
}

func (s *stub) Disconnect(_ context.Context, _ bool, step func(string)) error {
	return s.long("disconnect", step)
}

func (s *stub) Renew(_ context.Context, _ string, step func(string)) error {
	return s.long("renew", step)
}
func (s *stub) Adopt(_ context.Context, step func(string)) error { return s.long("adopt", step) }
func (s *stub) Reset(_ context.Context, _ string, step func(string)) error {
	return s.long("reset", step)
}

func (s *stub) Audit(_ context.Context, from uint64, _ bool, f func([]byte) error) error {
	s.asked = append(s.asked, "audit")
	return f(fmt.Appendf(nil, `{"seq":%d}`, from))
}

// world is a served socket.
type world struct {
	agent *stub
	host  *platformtest.Sim
	path  string
}

func serve(t *testing.T) *world {
	t.Helper()
	w := &world{agent: &stub{state: lifecycle.Connected}, host: platformtest.NewSim(t)}
	w.path = w.host.Dirs().Runtime + "/control.sock"
	l, err := w.host.Listen(t.Context(), platform.Listener{Name: "control", Network: "unix", Address: w.path})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(w.agent, w.host, "himds", slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// as is a client of one account.
func (w *world) as(p platform.Peer) *Client {
	return &Client{Path: w.path, Dial: func(ctx context.Context, path string) (net.Conn, error) {
		return w.host.DialAs(p)(ctx, "unix", path)
	}}
}

// TestEveryCallIsDecidedByThePeer: the mode of the socket lets everybody
// connect; who may do what is this table.
func TestEveryCallIsDecidedByThePeer(t *testing.T) {
	calls := []struct {
		name  string
		least rank
		do    func(context.Context, *Client) error
	}{
		{"status", anyone, func(ctx context.Context, c *Client) error { _, err := c.Status(ctx); return err }},
		{"wait", anyone, func(ctx context.Context, c *Client) error {
			_, err := c.Wait(ctx, time.Second, lifecycle.Connected)
			return err
		}},
		{"token", reader, func(ctx context.Context, c *Client) error {
			_, err := c.Token(ctx, TokenRequest{Resource: "r"})
			return err
		}},
		{"audit", administrator, func(ctx context.Context, c *Client) error {
			return c.Audit(ctx, 7, false, func([]byte) error { return nil })
		}},
		{"workload", administrator, func(ctx context.Context, c *Client) error {
			_, err := c.Workload(ctx, WorkloadRequest{Name: "w"})
			return err
		}},
		{"probe", administrator, func(ctx context.Context, c *Client) error { _, err := c.Probe(ctx); return err }},
		{"connect", administrator, long("connect", ConnectRequest{Claim: "good"})},
		{"disconnect", administrator, long("disconnect", struct{}{})},
		{"renew", administrator, long("renew", struct{}{})},
		{"adopt", administrator, long("adopt", struct{}{})},
		{"reset", administrator, long("reset", struct{}{})},
	}
	ranks := map[platform.Peer]rank{root: administrator, self: administrator, member: reader, stranger: anyone, platform.Unknown: anyone}
	for _, call := range calls {
		for peer, have := range ranks {
			t.Run(call.name+" by "+peer.String(), func(t *testing.T) {
				w := serve(t)
				err := call.do(t.Context(), w.as(peer))
				if allowed := have >= call.least; allowed != (err == nil) {
					t.Fatalf("got %v, want allowed %v", err, allowed)
				}
				if err != nil {
					var f *Fault
					if !errors.As(err, &f) || f.Exit != ExitPermission || f.Fix == "" {
						t.Errorf("%#v does not say what to do", err)
					}
					if len(w.agent.asked) > 0 {
						t.Errorf("the agent was asked: %v", w.agent.asked)
					}
				}
			})
		}
	}
}

func long(verb string, body any) func(context.Context, *Client) error {
	return func(ctx context.Context, c *Client) error { return c.Run(ctx, verb, body, nil) }
}

// TestStatusNamesCallersToAdministratorsOnly keeps who asks for what from
// other accounts.
func TestStatusNamesCallersToAdministratorsOnly(t *testing.T) {
	w := serve(t)
	for peer, want := range map[platform.Peer]bool{root: true, self: true, member: false, stranger: false, platform.Unknown: false} {
		st, err := w.as(peer).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := len(st.Callers) > 0 && len(st.Tokens.List) > 0; got != want {
			t.Errorf("%s sees callers: %v, want %v", peer, got, want)
		}
		if !want && (len(st.Callers) > 0 || len(st.Tokens.List) > 0) {
			t.Errorf("%s sees %+v", peer, st)
		}
	}
}

func TestLongCallsReportStepsAndTheFault(t *testing.T) {
	w := serve(t)
	var steps []string
	if err := w.as(root).Run(t.Context(), "connect", ConnectRequest{Claim: "good"}, func(s string) { steps = append(steps, s) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(steps, []string{"one step"}) {
		t.Errorf("steps %v", steps)
	}
	err := w.as(root).Run(t.Context(), "connect", ConnectRequest{Claim: "bad"}, nil)
	var f *Fault
	if !errors.As(err, &f) || f.Exit != ExitRejected || f.ID != "claim" || f.Fix != "make a new one" || !slices.Contains(f.Chain, "the claim was used") {
		t.Errorf("fault %+v", f)
	}
}

// TestBrowsersAndForeignNamesAreRefused: a second line behind the unix socket.
func TestBrowsersAndForeignNamesAreRefused(t *testing.T) {
	w := serve(t)
	for name, change := range map[string]func(*http.Request){
		"origin":  func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
		"referer": func(r *http.Request) { r.Header.Set("Referer", "http://evil.example") },
		"host":    func(r *http.Request) { r.Host = "evil.example" },
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+hostName+"/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		change(req)
		resp := w.roundTrip(t, root, req) //nolint:bodyclose // closed there
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}

func (w *world) roundTrip(t *testing.T, p platform.Peer, req *http.Request) *http.Response {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return w.host.DialAs(p)(ctx, "unix", w.path)
	}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp
}

func TestBadBodiesAreUsageErrors(t *testing.T) {
	w := serve(t)
	for _, body := range []string{"", "{", `{"resource":1}`, `{"unknown":true}`, strings.Repeat("x", maxRequest+1), strings.Repeat("x", maxOnboarding)} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+hostName+"/v1/token", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if resp := w.roundTrip(t, root, req); resp.StatusCode != http.StatusUnprocessableEntity { //nolint:bodyclose // closed there
			t.Errorf("%.20q: %s", body, resp.Status)
		}
	}
	if len(w.agent.asked) > 0 {
		t.Errorf("the agent was asked: %v", w.agent.asked)
	}
}

// TestOneAccountCannotTakeEveryConnection: the bound is tested at the bound
// and one beyond, and others are still served.
func TestOneAccountCannotTakeEveryConnection(t *testing.T) {
	w := serve(t)
	var held []net.Conn
	for range maxConnectionsPerPeer {
		c, err := w.host.DialAs(stranger)(t.Context(), "unix", w.path)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		if _, err := c.Write([]byte("GET")); err != nil { // a started request: the connection counts
			t.Fatal(err)
		}
	}
	one, err := w.host.DialAs(stranger)(t.Context(), "unix", w.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Read(make([]byte, 1)); err == nil {
		t.Error("connection 9 of one account was served")
	}
	if _, err := w.as(root).Status(t.Context()); err != nil {
		t.Errorf("root is shut out: %v", err)
	}
	for _, c := range append(held, one) {
		_ = c.Close()
	}
}

func TestNobodyListeningIsAFaultOfItsOwn(t *testing.T) {
	c := &Client{Path: t.TempDir() + "/none.sock"}
	_, err := c.Status(t.Context())
	var f *Fault
	if !errors.Is(err, ErrNotRunning) || !errors.As(err, &f) || f.Exit != ExitNotRunning || f.Fix == "" {
		t.Errorf("got %#v", err)
	}
}

func TestFaultsKeepTheirIDWhenTheyAreWrapped(t *testing.T) {
	inner := NewFault(ExitExpired, "state-Expired", "postern reconnect", "token: %w", errors.New("Expired"))
	outer := AsFault(fmt.Errorf("verb: %w", inner))
	if outer.ID != inner.ID || outer.Exit != ExitExpired || outer.Fix != inner.Fix || outer.Message != "verb: token: Expired" {
		t.Errorf("got %+v", outer)
	}
	if AsFault(nil) != nil {
		t.Error("nil is a fault")
	}
	if plain := AsFault(io.EOF); plain.Exit != ExitFailed || plain.Message != "EOF" {
		t.Errorf("got %+v", plain)
	}
	raw, err := json.Marshal(inner)
	if err != nil || !strings.HasPrefix(string(raw), `{"schema":"postern.error/1"`) {
		t.Errorf("%s, %v", raw, err)
	}
}

// TestEveryStateHasItsExitCode keeps the published table.
func TestEveryStateHasItsExitCode(t *testing.T) {
	want := map[lifecycle.State]int{
		lifecycle.Connected: 0, lifecycle.Unenrolled: 4, lifecycle.Expired: 5, lifecycle.Offline: 6, lifecycle.ClockUntrusted: 6,
		lifecycle.Rejected: 9, lifecycle.Damaged: 11, lifecycle.Moved: 12,
	}
	for state, code := range want {
		if got := StateExit(state); got != code {
			t.Errorf("%s: %d, want %d", state, got, code)
		}
	}
}
