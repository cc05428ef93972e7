package site

import (
	"bufio"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// refusedBy reports whether err is the server's TLS alert of that name.
func refusedBy(err error, name string) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == "tls: "+name
}

func TestExpiredCertificateEndsTheHandshakeWithItsOwnAlert(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	w.clock.set(d.leaf().NotAfter.Add(time.Second))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := w.client(d)
		c.Transport.(*http.Transport).TLSClientConfig.MaxVersion = version
		_, err := c.Post(testURL+"/1.0/renew", "", nil) //nolint:bodyclose // there is none
		if !refusedBy(err, "expired certificate") {
			t.Errorf("%s: got %v, want the alert certificate_expired", tls.VersionName(version), err)
		}
	}
}

func TestForeignClientCertificatesAreRefusedInTheHandshake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server, err := w.a.serverCertificate(context.Background())
	w.must(err)
	key, ok := server.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatal("no key")
	}
	for name, d := range map[string]*device{
		"another site's":             newWorld(t).connect("gw"),
		"the authority's own server": {key, []*x509.Certificate{server.Leaf}},
	} {
		_, err := w.try(d, "POST", "/1.0/renew", nil, "")
		if !refusedBy(err, "bad certificate") && !refusedBy(err, "unknown certificate authority") {
			t.Errorf("%s: got %v, want an alert", name, err)
		}
	}
}

func TestClientMaySendItsLeafAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	if a := w.do(&device{d.key, d.chain[:1]}, "POST", "/1.0/renew", nil, ""); a.status != 201 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestSessionsAreNotResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(w.connect("gw"))
	c.Transport.(*http.Transport).TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 3 {
		res, err := c.Get(testURL + "/health")
		w.must(err)
		_ = res.Body.Close()
		if res.TLS.DidResume {
			t.Error("a session was resumed")
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(nil)
	cfg := c.Transport.(*http.Transport).TLSClientConfig
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := c.Get(testURL + "/health"); err == nil { //nolint:bodyclose // there is none
		t.Error("TLS 1.1 was taken")
	}
}

func TestServerCertificateCarriesItsNamesAndRenewsItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaf := func() *x509.Certificate {
		t.Helper()
		c := w.client(nil)
		res, err := c.Get(testURL + "/health")
		w.must(err)
		_ = res.Body.Close()
		return res.TLS.PeerCertificates[0]
	}
	first := leaf()
	for _, name := range []string{"authority.test", "localhost", "127.0.0.1", "::1", "gate.test", "192.0.2.7"} {
		if err := first.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if err := first.VerifyHostname("elsewhere.test"); err == nil {
		t.Error("it carries any name")
	}
	if slices.Contains(first.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		t.Error("the server certificate could be a client's")
	}
	w.clock.add(44 * 24 * time.Hour)
	if !leaf().Equal(first) {
		t.Error("renewed too early")
	}
	w.clock.add(2 * 24 * time.Hour)
	second := leaf()
	if second.Equal(first) || !second.NotAfter.After(first.NotAfter) {
		t.Error("not renewed after half its life")
	}
	w.clock.set(start) // the clock goes back: a certificate from the future would be refused
	if third := leaf(); third.NotBefore.After(start) {
		t.Error("served a certificate that is not valid yet")
	}
}

func TestConnectionDoesNotOutliveItsCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	c := w.client(d)
	c.Transport.(*http.Transport).DisableKeepAlives = false
	defer c.CloseIdleConnections()
	post := func() (int, string) {
		t.Helper()
		res, err := c.Post(testURL+"/1.0/renew", "", nil)
		w.must(err)
		defer func() { _ = res.Body.Close() }()
		raw, err := io.ReadAll(res.Body)
		w.must(err)
		return res.StatusCode, answer{body: raw}.message()
	}
	if status, _ := post(); status != 201 {
		t.Fatalf("status %d", status)
	}
	w.clock.set(d.leaf().NotAfter.Add(time.Second))
	status, text := post()
	want := "The request lacked necessary authorization to be completed: certificate expired on " + d.leaf().NotAfter.String()
	if status != 401 || text != want {
		t.Errorf("got %d %q, want 401 %q", status, text, want)
	}
}

func TestEveryAnswerCarriesTheAuthoritysDate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clock.set(time.Date(2031, 3, 4, 5, 6, 7, 0, time.UTC))
	d := w.connect("gw")
	for _, tc := range []struct {
		d            *device
		method, path string
		body         string
		status       int
	}{
		{nil, "GET", "/health", "", 200},
		{nil, "GET", "/nowhere", "", 404},
		{nil, "GET", "/sign", "", 405},
		{nil, "POST", "/sign", "x", 400},
		{nil, "POST", "/sign", `{"csr":"` + strings.Repeat("x", 70000) + `"}`, 413},
		{d, "POST", "/renew", "", 201},
		{nil, "GET", "/.well-known/openid-configuration", "", 200},
		{nil, "GET", "/common/discovery/v2.0/keys", "", 400},
		{nil, "POST", w.tokenPath(), "x", 400},
		{nil, "GET", "/v1/machines/self/identities", "", 401},
		{d, "GET", "/v1/machines/self/identities", "", 200},
	} {
		got := w.do(tc.d, tc.method, tc.path, nil, tc.body)
		if got.status != tc.status || got.header.Get("Date") != "Tue, 04 Mar 2031 05:06:07 GMT" || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %d, date %q, %q", tc.method, tc.path, got.status, got.header.Get("Date"), got.header.Get("Cache-Control"))
		}
	}
}

func TestRequestsBeyondTheLimitsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	status := func(body io.Reader, header string) int {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, testURL+"/1.0/sign", body)
		w.must(err)
		r.Header.Set("X-Pad", header)
		res, err := w.client(nil).Do(r)
		w.must(err)
		_ = res.Body.Close()
		return res.StatusCode
	}
	object := func(n int) string { return `{"x":"` + strings.Repeat("a", n-8) + `"}` }
	if got := status(strings.NewReader(object(maxBody)), ""); got != 400 {
		t.Errorf("body of 64 KiB: %d", got)
	}
	if got := status(strings.NewReader(object(maxBody+1)), ""); got != 413 {
		t.Errorf("body of 64 KiB and one, announced: %d", got)
	}
	if got := status(io.MultiReader(strings.NewReader(object(maxBody+1))), ""); got != 413 { // chunked
		t.Errorf("body of 64 KiB and one, not announced: %d", got)
	}
	if got := status(nil, strings.Repeat("h", maxHeader-1024)); got != 400 {
		t.Errorf("header of 15 KiB: %d", got)
	}
	if got := status(nil, strings.Repeat("h", maxHeader+1024)); got != 431 {
		t.Errorf("header of 17 KiB: %d", got)
	}
}

func TestServeOnLoopbackSpeaksHTTP1AndStopsGracefully(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.a.Serve(ctx, l) }()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.a.RootPEM()))
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, Time: w.clock.Now, NextProtos: []string{"h2", "http/1.1"}})
	w.must(err)
	defer func() { _ = conn.Close() }()
	if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("protocol %q", p)
	}
	_, err = io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	w.must(err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	w.must(err)
	w.must(res.Body.Close())
	if res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

func TestServeSaysWhyItsListenerFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	w.must(l.Close())
	if err := w.a.Serve(context.Background(), l); err == nil {
		t.Error("a dead listener was served")
	}
}

func TestNoMoreConnectionsThanTheLimitAreAccepted(t *testing.T) {
	t.Parallel()
	p := newPipe()
	l := limit(p, 2)
	var open []net.Conn
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	dial := func() error {
		c, err := p.dial(ctx)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return err
	}
	for range 2 {
		if err := dial(); err != nil {
			t.Fatal(err)
		}
		open = append(open, <-accepted)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- dial() }()
	select {
	case <-accepted:
		t.Fatal("a third connection was accepted")
	default:
	}
	_ = open[0].Close()
	_ = open[0].Close() // frees its place once
	if c := <-accepted; c == nil || <-waiting != nil {
		t.Fatal("the place that became free was not given on")
	}
	cancel()
	_ = l.Close()
	if c, ok := <-accepted; ok {
		t.Fatalf("accepted %v after Close", c)
	}
}

// A server that took certificates without verifying them would hand over a
// stranger's: only what the handshake verified counts.
func TestACertificateThatTheHandshakeDidNotVerifyIsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	r := httptest.NewRequest(http.MethodPost, "/renew", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: d.chain}
	rec := httptest.NewRecorder()
	if w.a.Handler().ServeHTTP(rec, r); rec.Code != http.StatusBadRequest {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}
