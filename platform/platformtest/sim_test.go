package platformtest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"postern/platform"
)

func TestSimKeepsTheContract(t *testing.T) {
	Run(t, func(t *testing.T) platform.Host { return NewSim(t) })
}

func TestSimulatedTimeIsTheTestsToCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSim(t)
		start := s.Clock()
		s.SetWall(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
		if got := s.Clock(); got.Boot != start.Boot || !got.Wall.Equal(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)) {
			t.Errorf("after SetWall the clock is %+v", got)
		}
		<-time.After(time.Hour)
		s.Suspend(12 * time.Hour)
		s.Step(-24 * time.Hour)
		got := s.Clock()
		if got.Boot != 13*time.Hour {
			t.Errorf("boot time is %v, want 13 h", got.Boot)
		}
		if want := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC); !got.Wall.Equal(want) {
			t.Errorf("wall time is %v, want %v", got.Wall, want)
		}
		s.Reboot(t)
		if again := s.Clock(); again.Boot != 0 || again.BootID == got.BootID || !again.Wall.Equal(got.Wall) {
			t.Errorf("after a reboot the clock is %+v", again)
		}
	})
}

func TestSimulatedNetworkCarriesHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSim(t)
		ln, err := s.Listen(t.Context(), platform.Listener{Name: "arc", Network: "tcp4", Address: "127.0.0.1:40342"})
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.Context().Value(peerKey{}).(platform.Peer).String())
			}),
			ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				return context.WithValue(ctx, peerKey{}, s.Peer(c))
			},
		}
		done := make(chan error, 1)
		go func() { done <- server.Serve(ln) }()
		for _, p := range []platform.Peer{platform.UIDPeer(7), platform.Unknown} {
			transport := &http.Transport{DialContext: s.DialAs(p)}
			resp, err := (&http.Client{Transport: transport}).Get("http://127.0.0.1:40342/")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err = errors.Join(err, resp.Body.Close()); err != nil || string(body) != p.String() {
				t.Errorf("served as %q, %v, want %q", body, err, p)
			}
			transport.CloseIdleConnections()
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if _, err := s.Dial(t.Context(), "tcp", "arc"); err == nil {
			t.Error("a closed listener was reached")
		}
	})
}

type peerKey struct{}

func TestSimulatedRebootEmptiesTheRuntimeDirectory(t *testing.T) {
	s := NewSim(t)
	if err := s.WriteFile(s.Dirs().Tokens+"/a.key", []byte("x"), platform.TokenReaders); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteFile(s.Dirs().State+"/identity.db", []byte("x"), platform.Private); err != nil {
		t.Fatal(err)
	}
	ln, err := s.Listen(t.Context(), platform.Listener{Name: "arc", Network: "tcp4", Address: "127.0.0.1:40342"})
	if err != nil {
		t.Fatal(err)
	}
	s.Reboot(t)
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listener survived: %v", err)
	}
	if err := s.Check(s.Dirs().Tokens+"/a.key", platform.TokenReaders); err == nil {
		t.Error("the token directory survived")
	}
	if err := s.Check(s.Dirs().State+"/identity.db", platform.Private); err != nil {
		t.Error(err)
	}
}
