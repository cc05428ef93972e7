package authority_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/lifecycle"
)

type tlsServer struct{ certificate tls.Certificate }

func (s *tlsServer) tls() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{s.certificate}}
}

const proxyHost = "proxy.test:3128"

// proxy serves CONNECT on the network; answer is the status line and headers it
// gives, empty to connect.
func (w world) proxy(answer func(r *http.Request) string) {
	l := w.Net.Listen(proxyHost)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.relay(conn, answer) })
		}
	})
	w.OnStop(func() {
		_ = l.Close()
		running.Wait()
	})
}

func (w world) relay(conn net.Conn, answer func(r *http.Request) string) {
	defer func() { _ = conn.Close() }()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	if said := answer(r); said != "" {
		_, _ = io.WriteString(conn, said)
		return
	}
	next, err := w.Net.Dial(w.T.Context(), "tcp", r.RequestURI)
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(next, conn)
		_ = next.Close()
	}()
	_, _ = io.Copy(conn, next)
}

func (w world) proxied() authority.Config {
	config := w.Config()
	config.Proxy = &url.URL{Scheme: "http", Host: proxyHost}
	return config
}

func TestProxyIsAskedToConnectAndSeesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		w.serve(authoritytest.Host, func(rw http.ResponseWriter, r *http.Request) {
			if len(r.TLS.PeerCertificates) > 0 && r.Header.Get("Proxy-Authorization") == "" {
				_, _ = io.WriteString(rw, "ok")
			}
		})
		w.proxy(func(r *http.Request) string {
			if r.Method != http.MethodConnect || r.RequestURI != authoritytest.Host+":443" || r.Host != r.RequestURI {
				t.Errorf("asked %s %s for %s", r.Method, r.RequestURI, r.Host)
			}
			if user, password, ok := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); !ok || user != "edge" || password != "pass:word" {
				t.Errorf("credentials %q %q", user, password)
			}
			return ""
		})
		config := w.proxied()
		config.ProxyAuth = func() string { return "edge:pass:word" }
		config.Certificate = w.PKI.Credential("c").TLS()
		config.Hosts = []string{authoritytest.Host + ":443"}
		if resp, err := w.get(authority.NewClient(config), base); err != nil || string(resp.Body) != "ok" {
			t.Errorf("got %v, %v", resp, err)
		}
		if got := w.Net.Dialled(); len(got) != 2 || got[0] != proxyHost {
			t.Errorf("dialled %v", got)
		}
	})
}

func TestUP10ProxyIsNamedNotTheAuthority(t *testing.T) {
	for name, c := range map[string]struct{ answer, words string }{
		"407":                  {"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "asks for a user and password (407)"},
		"403":                  {"HTTP/1.1 403 Forbidden\r\n\r\n", "refuses to connect us to authority.test:443: 403 Forbidden"},
		"redirect":             {"HTTP/1.1 302 Found\r\nLocation: http://login.test\r\n\r\n", "302 Found"},
		"speaks first":         {"HTTP/1.1 200 OK\r\n\r\nhello", "sent data before TLS"},
		"not HTTP":             {"hello\r\n\r\n", "no answer to CONNECT"},
		"hangs up":             {"HTTP/1.1 200", "no answer to CONNECT"},
		"header without end":   {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 64<<10), "no answer to CONNECT"},
		"control codes in 500": {"HTTP/1.1 500 \x1b[31mred\r\n\r\n", "[31mred"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w world) {
				w.proxy(func(*http.Request) string { return c.answer })
				_, err := w.get(authority.NewClient(w.proxied()), base)
				w.fails(err, lifecycle.ClassTransient, "proxy "+proxyHost)
				w.fails(err, lifecycle.ClassTransient, c.words)
				if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
					t.Errorf("not printable: %q", err)
				}
			})
		})
	}
}

func TestUP10ProxyThatIsGoneOrSilent(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		_, err := w.get(authority.NewClient(w.proxied()), base)
		w.fails(err, lifecycle.ClassTransient, "proxy "+proxyHost+": there is no host of that name")

		release := make(chan struct{})
		w.proxy(func(*http.Request) string { <-release; return "" })
		start := time.Now()
		_, err = w.get(authority.NewClient(w.proxied()), base)
		w.fails(err, lifecycle.ClassTransient, "no answer to CONNECT in time")
		if got := time.Since(start); got != authority.HandshakeTimeout {
			t.Errorf("given up after %v", got)
		}
		close(release)
		synctest.Wait()
	})
}

func TestProxysHeaderIsReadToItsLimit(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		sent := 0
		l := w.Net.Listen(proxyHost)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			chunk := []byte("X: " + strings.Repeat("a", 1021))
			for _, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n"); err == nil; _, err = conn.Write(chunk) {
				sent += len(chunk)
			}
		}()
		start := time.Now()
		_, err := w.get(authority.NewClient(w.proxied()), base)
		w.fails(err, lifecycle.ClassTransient, "no answer to CONNECT")
		<-ended
		if sent > 256<<10 || time.Since(start) > 0 {
			t.Errorf("%d bytes were taken in %v", sent, time.Since(start))
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestProxyMustBeWrittenPlainly(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		for _, address := range []string{"https://proxy.test:3128", "socks5://proxy.test:1", "http://", "http://user:canary@proxy.test"} {
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			config := w.Config()
			config.Proxy = u
			_, err = w.get(authority.NewClient(config), base)
			w.fails(err, lifecycle.ClassTransient, "http://host:port")
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the password is in the text: %v", err)
			}
		}
		config := w.Config()
		config.Proxy = &url.URL{Scheme: "http", Host: "proxy.test"}
		_, _ = w.get(authority.NewClient(config), base) //nolint:errcheck // only where it went matters
		if got := w.Net.Dialled(); len(got) != 1 || got[0] != "proxy.test:80" {
			t.Errorf("dialled %v", got)
		}
	})
}

func TestEnvironmentDoesNotChooseAProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://evil.test:1")
	t.Setenv("SSL_CERT_FILE", "/nonexistent")
	inWorld(t, func(t *testing.T, w world) {
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		if _, err := w.get(authority.NewClient(w.Config()), base); err != nil {
			t.Error(err)
		}
	})
}

func TestClientsBelongToOneCertificate(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		w.serve(authoritytest.Host, func(rw http.ResponseWriter, r *http.Request) {
			for _, c := range r.TLS.PeerCertificates[:min(1, len(r.TLS.PeerCertificates))] {
				_, _ = io.WriteString(rw, c.Subject.CommonName)
			}
		})
		clients := authority.NewClients(w.Config())
		defer clients.CloseIdleConnections()
		ask := func(client *http.Client) string {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := authority.Do(client, req, "test", 100)
			if err != nil {
				t.Fatal(err)
			}
			return string(resp.Body)
		}
		const host = authoritytest.Host + ":443"
		a, b := w.PKI.Credential("a").TLS(), w.PKI.Credential("b").TLS()
		for range 2 { // the second round runs on connections that were kept
			for want, client := range map[string]*http.Client{"a": clients.With(a, host), "b": clients.With(b, host), "": clients.Plain()} {
				if got := ask(client); got != want {
					t.Errorf("spoke for %q, want %q", got, want)
				}
			}
		}
		if first, second := clients.With(a, host), clients.With(a, host); first != second {
			t.Error("a client is made anew for the same certificate")
		}
		if clients.With(a, host) == clients.With(a) || clients.With(nil, host) != clients.Plain() {
			t.Error("hosts do not tell clients apart")
		}
		mixed := *a
		mixed.PrivateKey = b.PrivateKey
		if clients.With(&mixed, host) == clients.With(a, host) {
			t.Error("a client is used for a certificate with another key")
		}
		if got := ask(clients.With(a)); got != "" {
			t.Errorf("spoke for %q without a host", got)
		}
		if n := len(w.Net.Dialled()); n != 4 {
			t.Errorf("%d connections, want 4", n)
		}
	})
}

func TestClientsAreBounded(t *testing.T) {
	w := authoritytest.NewTime()
	clients := authority.NewClients(authority.Config{Clock: w.Clock()})
	fake := func(n int) *tls.Certificate { return &tls.Certificate{Certificate: [][]byte{fmt.Append(nil, n)}} }
	first, second := clients.With(fake(0)), clients.With(fake(1))
	for n := 2; n < 128; n++ {
		clients.With(fake(n))
	}
	if clients.With(fake(0)) != first {
		t.Error("a client was dropped below the bound")
	}
	clients.With(fake(128))
	if clients.With(fake(0)) != first {
		t.Error("the client in use was dropped")
	}
	if clients.With(fake(1)) == second {
		t.Error("nothing was dropped beyond the bound")
	}
}

func TestAddressIsOfHTTPSOnly(t *testing.T) {
	for in, want := range map[string]string{
		"https://a.test": "a.test:443", "https://a.test:8443/x": "a.test:8443", "https://[::1]:9/": "[::1]:9", "https://127.0.0.1": "127.0.0.1:443",
		"http://a.test": "", "https://": "", "a.test": "", "": "",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := authority.Address(u); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := authority.Address(nil); got != "" {
		t.Errorf("nil: %q", got)
	}
}

// The alerts that decide about an identity must be told apart, in TLS 1.2,
// where they end the handshake, and in 1.3, where they come after it.
func TestAlertsAboutOurCertificateAreSeen(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		inWorld(t, func(t *testing.T, w world) {
			later := true
			w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {}, func(c *tls.Config) {
				c.MinVersion, c.MaxVersion = version, version
				c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, w.PKI.Pool()
				c.Time = func() time.Time {
					if later {
						return time.Now().AddDate(0, 0, 91)
					}
					return time.Now()
				}
			})
			config := w.Config()
			config.Hosts = []string{authoritytest.Host + ":443"}
			config.Certificate = w.PKI.Credential("c").TLS()
			_, err := w.get(authority.NewClient(config), base)
			w.fails(err, lifecycle.ClassTransient, "expired certificate")
			if alert, ok := authority.Alert(err); !ok || alert != authority.AlertCertificateExpired {
				t.Errorf("got alert %v, %v", alert, ok)
			}
			later = false
			config.Certificate = authoritytest.NewPKI(t, time.Now()).Credential("c").TLS()
			_, err = w.get(authority.NewClient(config), base)
			if alert, ok := authority.Alert(err); !ok || alert != authority.AlertUnknownCA && alert != authority.AlertBadCertificate {
				t.Errorf("foreign: got alert %v, %v: %v", alert, ok, err)
			}
		})
	}
	if _, ok := authority.Alert(errors.Join(context.Canceled)); ok {
		t.Error("an error that is no alert was taken for one")
	}
}
