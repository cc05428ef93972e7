package endpoint

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/token"
	"postern/platform"
)

func TestStopFinishesWhatIsInFlightWithin5Seconds(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		b.stub.answer(func(_ context.Context, q token.Request) (token.Token, error) {
			time.Sleep(3 * time.Second)
			return goodToken(q), nil
		})
		silent, idle, busy := b.connect(alice), b.connect(alice), b.connect(alice)
		idle.ask(http.MethodGet, request("/metadata/versions"))
		busy.send(request(tokenURI))
		synctest.Wait()
		start := time.Now()
		b.cancel()
		synctest.Wait()
		if !over(silent) || !over(idle) {
			t.Error("connections without a request are not closed at once")
		}
		b.must(busy.read(http.MethodGet), http.StatusOK, canary)
		if err := <-b.done; err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("stopped after %v", d)
		}
		b.done <- nil
	})
}

func TestStopCutsWhatTakesLongerThan5Seconds(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		b.stub.answer(func(ctx context.Context, _ token.Request) (token.Token, error) {
			<-ctx.Done()
			return token.Token{}, ctx.Err()
		})
		l := b.connect(alice)
		l.send(request(tokenURI))
		synctest.Wait()
		start := time.Now()
		b.cancel()
		if err := <-b.done; err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("stopped after %v", d)
		}
		b.done <- nil
	})
}

func TestStopLetsGoOfWhoeverWaitsForAPlace(t *testing.T) {
	inBubble(t, Arc, func(_ *testing.T, b *bubble) {
		b.fill(false)
		b.connect(alice)
	})
}

func TestBrokenListenerIsAnError(t *testing.T) {
	r := &rig{t: t, flavour: IMDS, stub: &stub{}}
	s, err := New(r.options())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), Listener{Listener: fixedListener{}, Flavour: IMDS}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// at is a listener with an address of its own.
type at struct {
	fixedListener
	ip net.IP
}

func (l at) Addr() net.Addr { return &net.TCPAddr{IP: l.ip, Port: 40342} }

type unixListener struct{ fixedListener }

func (unixListener) Addr() net.Addr { return &net.UnixAddr{Name: "/run/x", Net: "unix"} }

func TestListenerThatTheNetworkReachesIsRefused(t *testing.T) {
	r := &rig{t: t, stub: &stub{}}
	o := r.options()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		ip      string
		flavour Flavour
		ok      bool
	}{
		{"127.0.0.1", Arc, true},
		{"::1", Arc, true},
		{"0.0.0.0", Arc, false},
		{"::", Arc, false},
		{"192.168.1.5", Arc, false},
		{"169.254.169.254", Arc, false},
		{"127.0.0.1", IMDS, true},
		{"::1", IMDS, true},
		{"169.254.169.254", IMDS, true},
		{"169.254.169.253", IMDS, false},
		{"0.0.0.0", IMDS, false},
		{"10.0.0.1", IMDS, false},
		{"127.0.0.1", AppService, true},
		{"172.17.0.1", AppService, true},
		{"0.0.0.0", AppService, false},
		{"::", AppService, false},
		{"127.0.0.1", "", false},
		{"127.0.0.1", "azure", false},
	} {
		_, err := s.front(Listener{Listener: at{ip: net.ParseIP(tc.ip)}, Flavour: tc.flavour, Workload: "web"})
		if (err == nil) != tc.ok {
			t.Errorf("%s on %s: %v", tc.flavour, tc.ip, err)
		}
	}
	for name, l := range map[string]Listener{
		"no such workload": {Listener: fixedListener{}, Flavour: AppService, Workload: "x"},
		"no listener":      {Flavour: Arc},
		"unix":             {Listener: unixListener{}, Flavour: Arc},
	} {
		if err := s.Serve(t.Context(), l); err == nil {
			t.Errorf("%s: served", name)
		}
	}
	s.o.Keeper = nil
	if _, err := s.front(Listener{Listener: fixedListener{}, Flavour: Arc}); err == nil {
		t.Error("Arc without a keeper: served")
	}
	for _, list := range [][]*Workload{{nil}, {NewWorkload("", [32]byte{})}, {NewWorkload("a", [32]byte{}), NewWorkload("a", [32]byte{})}} {
		if _, err := New(Options{Workloads: list}); err == nil {
			t.Errorf("workloads %v: accepted", list)
		}
	}
}

// farConn comes from elsewhere.
type farConn struct {
	net.Conn
	remote, local net.Addr
}

func (c farConn) RemoteAddr() net.Addr { return c.remote }
func (c farConn) LocalAddr() net.Addr  { return c.local }

func TestOnlyThisMachineMayConnectWhereThereIsNoSecret(t *testing.T) {
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	imds := tcp("169.254.169.254")
	for _, tc := range []struct {
		remote, local net.Addr
		want          bool
	}{
		{tcp("127.0.0.1"), tcp("127.0.0.1"), true},
		{tcp("127.9.9.9"), tcp("127.0.0.1"), true},
		{tcp("::1"), tcp("::1"), true},
		{imds, imds, true},
		{tcp("::ffff:127.0.0.1"), tcp("127.0.0.1"), true},
		{tcp("203.0.113.7"), imds, false},
		{tcp("169.254.1.1"), imds, false},
		{tcp("2001:db8::7"), tcp("::1"), false},
		{tcp("::ffff:203.0.113.7"), imds, false},
		{&net.UnixAddr{Name: "x"}, imds, false},
		{nil, imds, false},
		{tcp("203.0.113.7"), nil, false},
	} {
		if got := fromThisMachine(farConn{remote: tc.remote, local: tc.local}); got != tc.want {
			t.Errorf("%v to %v: %v", tc.remote, tc.local, got)
		}
	}
}

// remoteListener hands out connections that seem to come from the network.
type remoteListener struct{ net.Listener }

func (l remoteListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return farConn{Conn: c, remote: &net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 5}, local: c.LocalAddr()}, nil
}

func TestNetworkGetsNotOneByte(t *testing.T) {
	for _, flavour := range []Flavour{Arc, IMDS, AppService} {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		r := newRigOn(t, flavour, remoteListener{l})
		line := r.dial()
		line.send(request(tokenURI))
		if got, _ := io.ReadAll(line.r); len(got) != 0 {
			t.Errorf("%s: the network read %q", flavour, got)
		}
		if d := r.denied(); len(d) != 1 || d[0].Reason != "guard: not of this machine" {
			t.Errorf("%s: denials %+v", flavour, d)
		}
	}
}

func TestMoreConnectionsThan128CannotBeAskedFor(t *testing.T) {
	for asked, want := range map[int]int{0: 128, -1: 128, 64: 64, 128: 128, 1000: 128} {
		if l := newLimits(asked); l.share != max(1, want/4) {
			t.Errorf("of %d connections one peer may have %d, want a quarter", want, l.share)
		}
		if got := newLimits(asked).max; got != want {
			t.Errorf("%d: %d, want %d", asked, got, want)
		}
	}
}

func TestWorkloadPaysForItsOwnConnections(t *testing.T) {
	inBubble(t, AppService, func(t *testing.T, b *bubble) {
		for i := range maxPerPeer {
			b.connect(platform.UIDPeer(uint32(6000 + i))) // all of one workload, whatever their accounts
		}
		if rep := b.connect(bob).read(http.MethodGet); rep.StatusCode != http.StatusTooManyRequests {
			t.Errorf("connection 33 of a workload: %d", rep.StatusCode)
		}
		time.Sleep(time.Second)
	})
}

func TestAddressAmongHostsStandsInBracketsInARequest(t *testing.T) {
	l := Listener{Flavour: AppService, Hosts: []string{"fd00::1", "10.0.0.1", "gateway.plant"}}
	hosts := allowedHosts(l, netip.MustParseAddr("172.17.0.1"), 40400)
	for host, want := range map[string]bool{
		"[fd00::1]": true, "[fd00::1]:40400": true, "fd00::1": false, "fd00::1:40400": false, "[fd00::1]:40401": false,
		"10.0.0.1": true, "10.0.0.1:40400": true, "gateway.plant:40400": true, "172.17.0.1": true,
	} {
		if _, got := hosts[host]; got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}
