package authority_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/lifecycle"
)

const base = "https://" + authoritytest.Host

// world adds to authoritytest's what these tests say often.
type world struct{ *authoritytest.World }

func inWorld(t *testing.T, test func(t *testing.T, w world)) {
	t.Helper()
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) { test(t, world{w}) })
}

func (w world) serve(name string, h http.HandlerFunc, changes ...func(*tls.Config)) {
	w.T.Helper()
	w.Serve(name, h, changes...)
}

func (w world) get(client *http.Client, url string) (*authority.Response, error) {
	w.T.Helper()
	req, err := http.NewRequestWithContext(w.T.Context(), http.MethodGet, url, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	defer client.CloseIdleConnections()
	return authority.Do(client, req, "test: get", authority.BodyLimit)
}

// fails wants an error of the class that says the words.
func (w world) fails(err error, class lifecycle.Class, words string) {
	w.T.Helper()
	authoritytest.WantError(w.T, err, class, words)
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
	inWorld(t, func(t *testing.T, w world) {
		shown := func(rw http.ResponseWriter, r *http.Request) {
			if len(r.TLS.PeerCertificates) > 0 {
				_, _ = io.WriteString(rw, "shown")
			}
		}
		w.serve(authoritytest.Host, shown)
		w.serve("other.test", shown)
		config := w.Config()
		config.Certificate = w.PKI.Credential("c").TLS()
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
	inWorld(t, func(t *testing.T, w world) {
		for _, url := range []string{"http://" + authoritytest.Host, "ftp://" + authoritytest.Host, "//" + authoritytest.Host} {
			_, err := w.get(authority.NewClient(w.Config()), url)
			w.fails(err, lifecycle.ClassTransient, "not https")
		}
		if got := w.Net.Dialled(); len(got) != 0 {
			t.Errorf("dialled %v", got)
		}
	})
}

func TestNobodyIsBelievedWithoutRoots(t *testing.T) {
	inWorld(t, func(_ *testing.T, w world) {
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		config := w.Config()
		config.Roots = nil
		_, err := w.get(authority.NewClient(config), base)
		w.fails(err, lifecycle.ClassTransient, "no chain")
	})
}

func TestSystemRootsNeedATrustedClock(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		config := w.Config()
		config.System = true // and its Roots no longer count
		_, err := w.get(authority.NewClient(config), base)
		w.fails(err, lifecycle.ClassTransient, "no chain")
		before := len(w.Net.Dialled())
		w.Time.Doubt()
		config.Clock = w.Time.Clock()
		_, err = w.get(authority.NewClient(config), base)
		w.fails(err, lifecycle.ClassClock, "the clock cannot be believed")
		if len(w.Net.Dialled()) != before {
			t.Error("it connected all the same")
		}
	})
}

func TestChainIsCheckedAtTheClocksTime(t *testing.T) {
	inWorld(t, func(_ *testing.T, w world) {
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		w.Time.Step(91 * 24 * time.Hour) // trusted, because synchronised
		_, err := w.get(authority.NewClient(w.Config()), base)
		w.fails(err, lifecycle.ClassTransient, "expired on")
		w.Time.Step(-92 * 24 * time.Hour)
		_, err = w.get(authority.NewClient(w.Config()), base)
		w.fails(err, lifecycle.ClassTransient, "not valid before")
	})
}

// A board that boots in 1970 or 2106 must be able to learn the time from its
// own authority, and from nobody else.
func TestUntrustedClockLearnsTheTimeFromThePinnedAuthority(t *testing.T) {
	for name, step := range map[string]time.Duration{"1970": -30 * 365 * 24 * time.Hour, "2106": 106 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w world) {
				w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
				now := time.Now()
				w.Time.Doubt()
				w.Time.Step(step)
				config := w.Config()
				config.Clock = w.Time.Clock()
				if _, err := w.get(authority.NewClient(config), base); err != nil {
					t.Fatal(err)
				}
				if off := config.Clock.Offset(); (off + step).Abs() > time.Second {
					t.Errorf("offset %v, want %v", off, -step)
				}
				// One whose certificate ended before the floor stays refused.
				config.Clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: w.Time.Reading, Floor: now.AddDate(1, 0, 0)})
				_, err := w.get(authority.NewClient(config), base)
				w.fails(err, lifecycle.ClassClock, "expired on")
				// And the second chance is for dates alone.
				config.Roots = authoritytest.NewPKI(t, now).Pool()
				config.Clock = lifecycle.NewClock(lifecycle.ClockOptions{Source: w.Time.Reading, Floor: now})
				before := len(w.Net.Dialled())
				_, err = w.get(authority.NewClient(config), base)
				if err == nil {
					t.Error("a foreign server was believed")
				}
				if n := len(w.Net.Dialled()) - before; strings.Contains(err.Error(), "no chain") && n > 2 {
					t.Errorf("%d connections", n)
				}
			})
		})
	}
}

// A chain that failed for another reason than its dates is not tried again.
func TestSecondChanceIsForDatesAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		w.Time.Doubt()
		w.Time.Step(24 * time.Hour) // the dates still fit
		config := w.Config()
		config.Clock = w.Time.Clock()
		config.Roots = authoritytest.NewPKI(t, time.Now()).Pool()
		_, err := w.get(authority.NewClient(config), base)
		w.fails(err, lifecycle.ClassTransient, "no chain")
		if n := len(w.Net.Dialled()); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestDateIsHeardOnlyFromTheVerifiedAuthority(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		ahead := func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			_, _ = io.WriteString(rw, "{}")
		}
		server := w.PKI.Server(authoritytest.Host)
		w.serve(authoritytest.Host, ahead, func(c *tls.Config) {
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &server, nil }
		})
		resp, err := authority.Bootstrap(t.Context(), w.Config(), base+"/root", "test", authority.BodyLimit)
		if err != nil || string(resp.Body) != "{}" {
			t.Fatalf("got %v, %v", resp, err)
		}
		if off := w.Clock.Offset(); off != 0 {
			t.Errorf("a server that nobody verified set the offset to %v", off)
		}
		server = authoritytest.NewPKI(t, time.Now()).Server(authoritytest.Host)
		_, err = w.get(authority.NewClient(w.Config()), base)
		w.fails(err, lifecycle.ClassTransient, "no chain")
		if off := w.Clock.Offset(); off != 0 {
			t.Errorf("a foreign server set the offset to %v", off)
		}
		server = w.PKI.Server(authoritytest.Host)
		if _, err := w.get(authority.NewClient(w.Config()), base); err != nil {
			t.Fatal(err)
		}
		if off := w.Clock.Offset(); (off - time.Hour).Abs() > time.Second {
			t.Errorf("offset %v, want 1h", off)
		}
	})
}

// TestDateOfAnAnswerThatWaitedThroughASuspendIsNotHeard: found by a simulated
// device that slept between its request and the answer.
func TestDateOfAnAnswerThatWaitedThroughASuspendIsNotHeard(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		sleep := time.Duration(0)
		w.serve(authoritytest.Host, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
			w.Time.Suspend(sleep)
			_, _ = io.WriteString(rw, "{}")
		})
		client := authority.NewClient(w.Config())
		if _, err := w.get(client, base); err != nil {
			t.Fatal(err)
		}
		sleep = 86 * time.Hour
		if _, err := w.get(client, base); err != nil {
			t.Fatal(err)
		}
		if now := w.Clock.Now(); !now.Trusted {
			t.Errorf("a right clock is not trusted: %s", now.Reason)
		}
	})
}

func TestBootstrapSendsNoCredentialAndChecksTheName(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		w.serve(authoritytest.Host, func(rw http.ResponseWriter, r *http.Request) {
			if len(r.TLS.PeerCertificates) > 0 {
				t.Error("a certificate was shown")
			}
		})
		config := w.Config()
		config.Certificate = w.PKI.Credential("c").TLS()
		config.Hosts = []string{authoritytest.Host + ":443"}
		config.Roots = authoritytest.NewPKI(t, time.Now()).Pool() // not used
		if _, err := authority.Bootstrap(t.Context(), config, base, "test", 10); err != nil {
			t.Error(err)
		}
		w.OnStop(authoritytest.Serve(t, w.Net.Listen("alias.test:443"),
			&tls.Config{Certificates: []tls.Certificate{w.PKI.Server("other.test")}}, http.NotFoundHandler()))
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
