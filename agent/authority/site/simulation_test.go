package site

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Four hundred days in one bubble, on the bubble's own clock, over bare
// net.Pipe connections: a machine that renews every 45 days, beats every day
// and asks for tokens never meets a refusal.
func TestAYearOfRenewalsInABubble(t *testing.T) {
	t.Parallel()
	testRSA()
	synctest.Test(t, func(t *testing.T) {
		opts := testOptions(nil)
		opts.Now = nil // time.Now, which is the bubble's
		a, err := Open(context.Background(), t.TempDir(), opts)
		if err != nil {
			t.Fatal(err)
		}
		s := &sim{world: &world{t: t, a: a, clock: &wall{}, pipe: newPipe()}}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- a.Serve(ctx, s.pipe) }()
		s.run()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := a.checkLedger(); err != nil {
			t.Error(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}

type sim struct {
	*world
	device *device
}

// httpClient is a client over bare net.Pipe connections.
func (s *sim) httpClient() *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(s.a.root.certificate)
	c := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if s.device != nil {
		c.Certificates = []tls.Certificate{*s.device.tls()}
	}
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: c, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			here, there := net.Pipe()
			select {
			case s.pipe.conns <- there:
				return here, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}}
}

func (s *sim) run() {
	s.clock.set(time.Now())
	ctx := context.Background()
	s.must(s.a.AddResource(ctx, Resource{Identifier: "*", Wildcard: true}))
	claim, err := s.a.CreateClaim(ctx, ClaimRequest{Machine: "gw"})
	s.must(err)
	s.device = s.sign(claim.Token.Reveal())
	renewed := 0
	for day := range 400 {
		<-time.After(24 * time.Hour)
		s.clock.set(time.Now())
		if time.Until(s.device.leaf().NotAfter) < 45*24*time.Hour {
			old := s.device
			s.device = s.rekey(old)
			s.selfRevoke(old, 4)
			renewed++
		}
		s.day(day)
	}
	if renewed < 8 {
		s.t.Errorf("%d renewals", renewed)
	}
}

func (s *sim) day(day int) {
	c := s.httpClient()
	res, err := c.Get(testURL + "/v1/machines/self/identities")
	s.must(err)
	_ = res.Body.Close()
	date, err := http.ParseTime(res.Header.Get("Date"))
	if res.StatusCode != 200 || err != nil || time.Since(date).Abs() > time.Minute {
		s.t.Errorf("day %d: list %d, date %v %v", day, res.StatusCode, date, err)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {s.device.clientID()}, "resource": {vault}}
	res, err = c.Post(testURL+s.tokenPath(), "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
	s.must(err)
	_ = res.Body.Close()
	if res.StatusCode != 200 {
		s.t.Errorf("day %d: token %d", day, res.StatusCode)
	}
}

// Whoever is slow loses the connection after ten seconds, at each stage.
func TestSlowClientsAreDropped(t *testing.T) {
	t.Parallel()
	testRSA()
	for name, say := range map[string]func(t *testing.T, s *sim, c net.Conn) net.Conn{
		"says nothing": func(_ *testing.T, _ *sim, c net.Conn) net.Conn { return c },
		"stops in its headers": func(t *testing.T, s *sim, c net.Conn) net.Conn {
			return s.sayTLS(t, c, "GET /health HTTP/1.1\r\nHost: x\r\n")
		},
		"stops in its body": func(t *testing.T, s *sim, c net.Conn) net.Conn {
			return s.sayTLS(t, c, "POST /sign HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := testOptions(nil)
				opts.Now = nil
				a, err := Open(context.Background(), t.TempDir(), opts)
				if err != nil {
					t.Fatal(err)
				}
				s := &sim{world: &world{t: t, a: a, pipe: newPipe()}}
				ctx, cancel := context.WithCancel(context.Background())
				ended := make(chan error, 1)
				go func() { ended <- a.Serve(ctx, s.pipe) }()
				here, there := net.Pipe()
				s.pipe.conns <- there
				before := time.Now()
				_, _ = io.Copy(io.Discard, say(t, s, here))
				// Closing politely takes crypto/tls up to 5 s over an unread pipe.
				if took := time.Since(before); took < maxTime || took > maxTime+6*time.Second {
					t.Errorf("dropped after %v", took)
				}
				_ = here.Close()
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// sayTLS sends text over TLS and returns what to read from.
func (s *sim) sayTLS(t *testing.T, c net.Conn, text string) net.Conn {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.a.root.certificate)
	conn := tls.Client(c, &tls.Config{RootCAs: roots, ServerName: "authority.test"})
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}
