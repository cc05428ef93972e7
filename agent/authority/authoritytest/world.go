package authoritytest

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/authority"
	"postern/agent/lifecycle"
)

// World is a network in a bubble of time, with a PKI that its servers use.
type World struct {
	T     *testing.T
	Net   *Net
	PKI   *PKI
	Time  *Time
	Clock *lifecycle.Clock // over Time
	stops []func()
}

// In runs a test in a bubble of its own and ends every server in it. The
// bubble's time begins at 2000-01-01 and passes when all wait.
func In(t *testing.T, test func(t *testing.T, w *World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		clock := NewTime()
		w := &World{T: t, Net: new(Net), PKI: NewPKI(t, time.Now()), Time: clock, Clock: clock.Clock()}
		defer w.stop()
		test(t, w)
	})
}

func (w *World) stop() {
	for _, stop := range w.stops {
		stop()
	}
}

// OnStop has f called when the test is over, before the bubble ends.
func (w *World) OnStop(f func()) { w.stops = append(w.stops, f) }

// Serve puts a server on the network, "name:443". It asks for a client
// certificate and takes any; changes apply before it starts.
func (w *World) Serve(name string, h http.Handler, changes ...func(*tls.Config)) {
	w.T.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{w.PKI.Server(name)}, ClientAuth: tls.RequestClientCert}
	for _, change := range changes {
		change(config)
	}
	w.OnStop(Serve(w.T, w.Net.Listen(name+":443"), config, h))
}

// Config is for clients that believe the PKI's root.
func (w *World) Config() authority.Config {
	return authority.Config{Clock: w.Clock, Roots: w.PKI.Pool(), Dial: w.Net.Dial}
}

// Clients are clients of Config, closed at the end.
func (w *World) Clients() *authority.Clients {
	clients := authority.NewClients(w.Config())
	w.OnStop(clients.CloseIdleConnections)
	return clients
}

// WantError wants a *lifecycle.Error of the class whose text, one printable
// line, contains the words.
func WantError(t *testing.T, err error, class lifecycle.Class, words string) {
	t.Helper()
	var e *lifecycle.Error
	switch {
	case err == nil:
		t.Errorf("no error; want %s with %q", class, words)
	case !errors.As(err, &e):
		t.Errorf("%T is no *lifecycle.Error: %v", err, err)
	case e.Class != class:
		t.Errorf("class %s, want %s: %v", e.Class, class, err)
	case !strings.Contains(err.Error(), words):
		t.Errorf("the error does not say %q: %v", words, err)
	case strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }):
		t.Errorf("the error is not one printable line: %q", err.Error())
	}
}
