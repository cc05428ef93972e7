package authoritytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/authority"
	"postern/agent/credential"
	"postern/agent/lifecycle"
)

// Host is the name of the authority in the tables of this package.
const Host = "authority.test"

// Trial is one server to be called, and what a driver is to use for it.
type Trial struct {
	URL        string           // https://authority.test
	Config     authority.Config // clock, roots and network
	Credential *credential.Credential
}

// Call is one call of a driver that shows a credential: a client certificate,
// an assertion, a one-time token.
type Call func(ctx context.Context, trial Trial) error

// badServer is one row of UP3 (firmware-notes/faults.md).
type badServer struct {
	name  string
	words string // that the error must contain
	setup func(tb testing.TB, p *PKI, c *tls.Config)
	serve func(conn net.Conn) // instead of TLS
}

func badServers() []badServer {
	leaf := func(change func(*x509.Certificate), names ...string) func(testing.TB, *PKI, *tls.Config) {
		return func(tb testing.TB, p *PKI, c *tls.Config) {
			key := NewKey(tb)
			c.Certificates = []tls.Certificate{TLSCertificate(key, p.Leaf(&key.PublicKey, change, names...))}
		}
	}
	return []badServer{
		{name: "foreign CA", words: "no chain", setup: func(tb testing.TB, p *PKI, c *tls.Config) {
			c.Certificates = []tls.Certificate{NewPKI(tb, p.now).Server(Host)}
		}},
		{name: "wrong name", words: "another name", setup: leaf(nil, "other.test")},
		{name: "expired", words: "expired on", setup: leaf(func(c *x509.Certificate) {
			c.NotAfter = c.NotBefore.Add(30 * time.Second)
		}, Host)},
		{name: "not yet valid", words: "not valid before", setup: leaf(func(c *x509.Certificate) {
			c.NotBefore = c.NotBefore.Add(24 * time.Hour)
		}, Host)},
		{name: "self-signed", words: "self-signed", setup: func(tb testing.TB, p *PKI, c *tls.Config) {
			c.Certificates = []tls.Certificate{selfSigned(tb, p)}
		}},
		{name: "TLS 1.0", words: "protocol version", setup: func(_ testing.TB, _ *PKI, c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
		}},
		{name: "TLS 1.1", words: "protocol version", setup: func(_ testing.TB, _ *PKI, c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
		}},
		{name: "weak key", words: "weak key: RSA of 1024 bits", setup: func(tb testing.TB, p *PKI, c *tls.Config) {
			key, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // this is the fault
			if err != nil {
				tb.Fatal(err)
			}
			c.Certificates = []tls.Certificate{TLSCertificate(key, p.Leaf(&key.PublicKey, nil, Host))}
		}},
		{name: "wrong use", words: "not meant for servers", setup: leaf(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, Host)},
		{name: "broken chain", words: "no chain", setup: func(_ testing.TB, _ *PKI, c *tls.Config) {
			c.Certificates[0].Certificate = c.Certificates[0].Certificate[:1]
		}},
		{name: "plain HTTP", words: "does not speak TLS", serve: func(conn net.Conn) {
			_, _ = io.CopyN(io.Discard, conn, 16) // as much as a request line; the answer ends the trial
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		}},
		{name: "cut in the handshake", words: "cut in the handshake", serve: func(conn net.Conn) {
			_, _ = io.CopyN(io.Discard, conn, 16) // then it is closed
		}},
		{name: "silent", words: "did not end within", serve: func(conn net.Conn) {
			_, _ = io.Copy(io.Discard, conn) // until the client gives up
		}},
	}
}

func selfSigned(tb testing.TB, p *PKI) tls.Certificate {
	tb.Helper()
	key := NewKey(tb)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{Host}, NotBefore: p.now.Add(-time.Hour), NotAfter: p.now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	template.KeyUsage |= x509.KeyUsageCertSign
	return TLSCertificate(key, []*x509.Certificate{p.sign(template, template, &key.PublicKey, key)})
}

// BadServers runs a driver's call against each bad server (firmware-notes/faults.md, UP3):
// the error must be Transient and name the check, and nothing that the driver
// wants to prove itself with may have left. Against the good server, which is
// the same without the fault, the call must reach good with its credential:
// that is what shows the table to be able to tell.
func BadServers(t *testing.T, good http.Handler, call Call) {
	t.Helper()
	t.Run("good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			seen := trial(t, badServer{}, good, call)
			if seen.err != nil {
				t.Errorf("the good server was refused: %v", seen.err)
			}
			if seen.requests == 0 {
				t.Error("the good server was not reached")
			}
		})
	})
	for _, bad := range badServers() {
		t.Run(bad.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := trial(t, bad, good, call)
				WantError(t, seen.err, lifecycle.ClassTransient, bad.words)
				if seen.requests > 0 || seen.certificates > 0 {
					t.Errorf("%d requests and %d client certificates reached the server", seen.requests, seen.certificates)
				}
				for _, canary := range seen.canaries {
					if bytes.Contains(seen.wire, canary) {
						t.Errorf("%q went over the wire", canary[:min(16, len(canary))])
					}
				}
			})
		})
	}
}

// outcome is what a trial showed.
type outcome struct {
	err                    error
	requests, certificates int
	wire                   []byte // what the client sent, as it was sent
	canaries               [][]byte
}

func trial(t *testing.T, bad badServer, good http.Handler, call Call) outcome {
	t.Helper()
	var (
		mu  sync.Mutex
		out outcome
	)
	clock := NewTime()
	p := NewPKI(t, time.Now())
	network := new(Net)
	config := &tls.Config{
		Certificates: []tls.Certificate{p.Server(Host)},
		ClientAuth:   tls.RequestClientCert,
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error { //nolint:gosec // it counts and judges nothing
			mu.Lock()
			defer mu.Unlock()
			out.certificates += len(raw)
			return nil
		},
	}
	if bad.setup != nil {
		bad.setup(t, p, config)
	}
	listener := recorder{Listener: network.Listen(Host + ":443"), heard: func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		out.wire = append(out.wire, b...)
	}}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		out.requests++
		mu.Unlock()
		good.ServeHTTP(w, r)
	})
	stop := serveTrial(t, listener, config, handler, bad.serve)

	who := p.Credential("11111111-2222-3333-4444-555555555555")
	pool := p.Pool()
	err := call(t.Context(), Trial{
		URL: "https://" + Host, Credential: who,
		Config: authority.Config{Clock: clock.Clock(), Roots: pool, Dial: network.Dial},
	})
	stop()
	mu.Lock()
	defer mu.Unlock()
	out.err = err
	out.canaries = [][]byte{who.Leaf().Raw, []byte(who.Identity.ClientID), []byte("assertion"), []byte("POST "), []byte("GET ")}
	return out
}

// serveTrial serves TLS with the handler, or raw connections.
func serveTrial(t *testing.T, l net.Listener, config *tls.Config, h http.Handler, raw func(net.Conn)) (stop func()) {
	t.Helper()
	if raw == nil {
		return Serve(t, l, config, h)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = conn.Close() }()
				raw(conn)
			})
		}
	})
	return func() {
		_ = l.Close()
		running.Wait()
	}
}

// Serve serves h over TLS on l until stop is called, which waits for the end of
// every connection, as a synctest bubble needs.
func Serve(t *testing.T, l net.Listener, config *tls.Config, h http.Handler) (stop func()) {
	t.Helper()
	server := &http.Server{ //nolint:gosec // its clients are our own
		Handler: h, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(l, "", "") }()
	return func() {
		if err := server.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	}
}

// recorder is a listener that hears every byte that clients send.
type recorder struct {
	net.Listener
	heard func([]byte)
}

// Accept implements net.Listener.
func (r recorder) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return heardConn{conn, r.heard}, nil
}

type heardConn struct {
	net.Conn
	heard func([]byte)
}

func (c heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.heard(b[:n])
	return n, err
}
