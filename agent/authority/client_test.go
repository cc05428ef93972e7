package authority_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/lifecycle"
)

const base = "https://" + authoritytest.Host

// world is a network with one good authority on it.
type world struct {
	t     *testing.T
	net   *authoritytest.Net
	pki   *authoritytest.PKI
	time  *authoritytest.Time
	clock *lifecycle.Clock
	stops []func()
}

// inWorld runs a test in a bubble and ends every server in it.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		clock := authoritytest.NewTime()
		w := &world{t: t, net: new(authoritytest.Net), pki: authoritytest.NewPKI(t, time.Now()), time: clock, clock: clock.Clock()}
		test(t, w)
		for _, stop := range w.stops {
			stop()
		}
	})
}

// serve puts a server on the network under the name.
func (w *world) serve(name string, h http.HandlerFunc, changes ...func(*tls.Config)) {
	config := &tls.Config{Certificates: []tls.Certificate{w.pki.Server(name)}, ClientAuth: tls.RequestClientCert}
	for _, change := range changes { // the server takes a copy when it starts
		change(config)
	}
	w.stops = append(w.stops, authoritytest.Serve(w.t, w.net.Listen(name+":443"), config, h))
}

func (w *world) config() authority.Config {
	return authority.Config{Clock: w.clock, Roots: w.pki.Pool(), Dial: w.net.Dial}
}

func (w *world) get(client *http.Client, url string) (*authority.Response, error) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	return authority.Do(client, req, "test: get", authority.BodyLimit)
}

// fails wants an error of the class that says the words.
func (w *world) fails(err error, class lifecycle.Class, words string) {
	w.t.Helper()
	var e *lifecycle.Error
	if !errors.As(err, &e) || e.Class != class || !strings.Contains(err.Error(), words) {
		w.t.Errorf("got %v; want class %s and %q", err, class, words)
	}
}

func TestUP3BadServersGetNothing(t *testing.T) {
	good := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "no certificate", http.StatusTeapot)
		}
	})
	authoritytest.BadServers(t, good, func(ctx context.Context, trial authoritytest.Trial) error {
		trial.Config.Certificate = trial.Credential.TLS()
		trial.Config.Hosts = []string{authoritytest.Host + ":443"}
		client := authority.NewClient(trial.Config)
		defer client.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, trial.URL, strings.NewReader("client_assertion=secret"))
		if err != nil {
			return err
		}
		resp, err := authority.Do(client, req, "test", authority.BodyLimit)
		if err == nil && resp.Status != http.StatusOK {
			return errors.New("the certificate did not arrive")
		}
		return err
	})
}

func TestClientCertificateStaysWithItsHosts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		shown := func(rw http.ResponseWriter, r *http.Request) {
			if len(r.TLS.PeerCertificates) > 0 {
				_, _ = io.WriteString(rw, "shown")
			}
		}
		w.serve(authoritytest.Host, shown)
		w.serve("other.test", shown)
		config := w.config()
		config.Certificate = w.pki.Credential("c").TLS()
		config.Hosts = []string{authoritytest.Host + ":443"}
		client := authority.NewClient(config)
		for url, want := range map[string]string{base: "shown", "https://other.test": ""} {
			resp, err := w.get(client, url)
			if err != nil || string(resp.Body) != want {
				t.Errorf("%s: got %q, %v; want %q", url, resp.Body, err, want)
			}
		}
	})
}

func TestOnlyHTTPSLeaves(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, url := range []string{"http://" + authoritytest.Host, "ftp://" + authoritytest.Host, "//" + authoritytest.Host} {
			_, err := w.get(authority.NewClient(w.config()), url)
			w.fails(err, lifecycle.ClassTransient, "not https")
		}
		if got := w.net.Dialled(); len(got) != 0 {
			t.Errorf("dialled %v", got)
		}
	})
}

func TestNobodyIsBelievedWithoutRoots(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		config := w.config()
		config.Roots = nil
		_, err := w.get(authority.NewClient(config), base)
		w.fails(err, lifecycle.ClassTransient, "no chain")
	})
}

func TestSystemRootsNeedATrustedClock(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		config := w.config()
		config.System = true // and its Roots no longer count
		_, err := w.get(authority.NewClient(config), base)
		w.fails(err, lifecycle.ClassTransient, "no chain")
		before := len(w.net.Dialled())
		w.time.Doubt()
		config.Clock = w.time.Clock()
		_, err = w.get(authority.NewClient(config), base)
		w.fails(err, lifecycle.ClassClock, "the clock cannot be believed")
		if len(w.net.Dialled()) != before {
			t.Error("it connected all the same")
		}
	})
}

func TestChainIsCheckedAtTheClocksTime(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		w.time.Step(91 * 24 * time.Hour) // trusted, because synchronised
		_, err := w.get(authority.NewClient(w.config()), base)
		w.fails(err, lifecycle.ClassTransient, "expired on")
		w.time.Step(-92 * 24 * time.Hour)
		_, err = w.get(authority.NewClient(w.config()), base)
		w.fails(err, lifecycle.ClassTransient, "not valid before")
	})
}

// A board that boots in 1970 or 2106 must be able to learn the time from its
// own authority, and from nobody else.
func TestUntrustedClockLearnsTheTimeFromThePinnedAuthority(t *testing.T) {
	for name, step := range map[string]time.Duration{"1970": -30 * 365 * 24 * time.Hour, "2106": 106 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
				now := time.Now()
				w.time.Doubt()
				w.time.Step(step)
				config := w.config()
				config.Clock = w.time.Clock()
				if _, err := w.get(authority.NewClient(config), base); err != nil {
					t.Fatal(err)
				}
				if off := config.Clock.Offset(); (off + step).Abs() > time.Second {
					t.Errorf("offset %v, want %v", off, -step)
				}
				// One whose certificate ended before the floor stays refused.
				config.Clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: w.time.Reading, Floor: now.AddDate(1, 0, 0)})
				_, err := w.get(authority.NewClient(config), base)
				w.fails(err, lifecycle.ClassClock, "expired on")
				// And the second chance is for dates alone.
				config.Roots = authoritytest.NewPKI(t, now).Pool()
				config.Clock = w.time.Clock()
				if _, err = w.get(authority.NewClient(config), base); err == nil {
					t.Error("a foreign server was believed")
				}
			})
		})
	}
}

func TestDateIsHeardOnlyFromTheVerifiedAuthority(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ahead := func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			_, _ = io.WriteString(rw, "{}")
		}
		server := w.pki.Server(authoritytest.Host)
		w.serve(authoritytest.Host, ahead, func(c *tls.Config) {
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &server, nil }
		})
		resp, err := authority.Bootstrap(t.Context(), w.config(), base+"/root", "test", authority.BodyLimit)
		if err != nil || string(resp.Body) != "{}" {
			t.Fatalf("got %v, %v", resp, err)
		}
		if off := w.clock.Offset(); off != 0 {
			t.Errorf("a server that nobody verified set the offset to %v", off)
		}
		server = authoritytest.NewPKI(t, time.Now()).Server(authoritytest.Host)
		_, err = w.get(authority.NewClient(w.config()), base)
		w.fails(err, lifecycle.ClassTransient, "no chain")
		if off := w.clock.Offset(); off != 0 {
			t.Errorf("a foreign server set the offset to %v", off)
		}
		server = w.pki.Server(authoritytest.Host)
		if _, err := w.get(authority.NewClient(w.config()), base); err != nil {
			t.Fatal(err)
		}
		if off := w.clock.Offset(); (off - time.Hour).Abs() > time.Second {
			t.Errorf("offset %v, want 1h", off)
		}
	})
}

func TestBootstrapSendsNoCredentialAndChecksTheName(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve(authoritytest.Host, func(rw http.ResponseWriter, r *http.Request) {
			if len(r.TLS.PeerCertificates) > 0 {
				t.Error("a certificate was shown")
			}
		})
		config := w.config()
		config.Certificate = w.pki.Credential("c").TLS()
		config.Hosts = []string{authoritytest.Host + ":443"}
		config.Roots = authoritytest.NewPKI(t, time.Now()).Pool() // not used
		if _, err := authority.Bootstrap(t.Context(), config, base, "test", 10); err != nil {
			t.Error(err)
		}
		w.stops = append(w.stops, authoritytest.Serve(t, w.net.Listen("alias.test:443"),
			&tls.Config{Certificates: []tls.Certificate{w.pki.Server("other.test")}}, http.NotFoundHandler()))
		_, err := authority.Bootstrap(t.Context(), config, "https://alias.test", "test", 10)
		w.fails(err, lifecycle.ClassTransient, "another name")
		_, err = authority.Bootstrap(t.Context(), config, "http://alias.test", "test", 10)
		w.fails(err, lifecycle.ClassTransient, "not https")
		_, err = authority.Bootstrap(t.Context(), config, "https://nowhere.test", "test", 10)
		w.fails(err, lifecycle.ClassTransient, "no host of that name")
	})
}

func TestClientNeedsAClock(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a client without a clock was made")
		}
	}()
	authority.NewClient(authority.Config{})
}
