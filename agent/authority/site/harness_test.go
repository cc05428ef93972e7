package site

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent/authority/jws"
)

const testURL = "https://authority.test:8443"

// start is when the tests' world begins.
var start = time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)

// testRSA makes the few RSA keys that all tests share: making one costs more
// than most tests.
var testRSA = sync.OnceValue(func() []*rsa.PrivateKey {
	keys := make([]*rsa.PrivateKey, 6)
	for i := range keys {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = key
	}
	return keys
})

// wall is a clock that tests move.
type wall struct {
	mu  sync.Mutex
	now time.Time
}

func (w *wall) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *wall) add(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *wall) set(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = t
}

// world is an authority that is served over in-memory connections.
type world struct {
	t     testing.TB
	dir   string
	clock *wall
	a     *Authority
	pipe  *pipeListener
	stop  func()
	opts  Options
}

func testOptions(clock *wall) Options {
	n := 0
	return Options{
		URL: testURL, Names: []string{"gate.test", "192.0.2.7"}, Now: clock.Now, Version: "1.0-test",
		signingKey: func() (rsaKey, error) {
			n++
			return testRSA()[n%len(testRSA())], nil
		},
	}
}

func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	w := looseWorld(t, change...)
	t.Cleanup(w.close)
	return w
}

// looseWorld is a world that its caller closes.
func looseWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	clock := &wall{now: start}
	w := &world{t: t, dir: t.TempDir(), clock: clock, opts: testOptions(clock)}
	for _, f := range change {
		f(&w.opts)
	}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	a, err := Open(context.Background(), w.dir, w.opts)
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	w.a, w.pipe = a, newPipe()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx, w.pipe) }()
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("serve: %v", err)
		}
	}
}

func (w *world) close() {
	w.stop()
	if err := w.a.Close(); err != nil {
		w.t.Errorf("close: %v", err)
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.close()
	w.open()
}

// device is a key with the chain that the authority gave for it.
type device struct {
	key   crypto.Signer
	chain []*x509.Certificate
}

func (d *device) leaf() *x509.Certificate { return d.chain[0] }
func (d *device) serial() string          { return d.chain[0].SerialNumber.String() }
func (d *device) clientID() string        { return d.chain[0].Subject.CommonName }

func (d *device) tls() *tls.Certificate {
	c := &tls.Certificate{PrivateKey: d.key, Leaf: d.leaf()}
	for _, cert := range d.chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// client is an HTTP client that trusts the root and shows d's certificate.
func (w *world) client(d *device) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(w.a.root.certificate)
	c := &tls.Config{RootCAs: roots, Time: w.clock.Now, MinVersion: tls.VersionTLS12}
	if d != nil {
		// Whatever authorities the server names: a hostile client does not care.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return d.tls(), nil }
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: c, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return w.pipe.dial(ctx) },
	}}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) message() string {
	var v struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(a.body, &v)
	return v.Message
}

func decodeAs[T any](t testing.TB, a answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("answer %d %q: %v", a.status, a.body, err)
	}
	return v
}

func (w *world) do(d *device, method, path string, header http.Header, body string) answer {
	w.t.Helper()
	a, err := w.try(d, method, path, header, body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (w *world) try(d *device, method, path string, header http.Header, body string) (answer, error) {
	c := w.client(d)
	defer c.CloseIdleConnections()
	r, err := http.NewRequestWithContext(context.Background(), method, testURL+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	res, err := c.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, raw}, err
}

func (w *world) post(d *device, path string, v any) answer {
	w.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do(d, http.MethodPost, path, nil, string(raw))
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := newECKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// csrFor makes a PEM CSR with the names of a one-time token.
func csrFor(t testing.TB, key crypto.Signer, commonName string, sans ...string) string {
	t.Helper()
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}
	names := splitNames(sans)
	template.DNSNames, template.EmailAddresses = names.dns, names.mail
	for _, ip := range names.ip {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	for _, u := range names.uri {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// claimsOf reads a one-time token without verifying it.
func claimsOf(t testing.TB, token string) oneTime {
	t.Helper()
	parsed, err := jws.Parse(token, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c oneTime
	if err := parsed.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// signBody is the body of a sign request that fits the token.
func signBody(t testing.TB, key crypto.Signer, token string) map[string]any {
	t.Helper()
	c := claimsOf(t, token)
	return map[string]any{"csr": csrFor(t, key, c.Subject, c.SANs...), "ott": token}
}

func chainOf(t testing.TB, a answer) []*x509.Certificate {
	t.Helper()
	if a.status != http.StatusCreated {
		t.Fatalf("status %d, want 201: %s", a.status, a.body)
	}
	var chain []*x509.Certificate
	for _, p := range decodeAs[chainResponse](t, a).Chain {
		block, _ := pem.Decode([]byte(p))
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	return chain
}

// sign uses a one-time token with a new key.
func (w *world) sign(token string) *device {
	w.t.Helper()
	key := newKey(w.t)
	return &device{key, chainOf(w.t, w.post(nil, "/1.0/sign", signBody(w.t, key, token)))}
}

func (w *world) claim(req ClaimRequest) string {
	w.t.Helper()
	c, err := w.a.CreateClaim(context.Background(), req)
	if err != nil {
		w.t.Fatalf("claim: %v", err)
	}
	return c.Token.Reveal()
}

// connect makes a machine.
func (w *world) connect(name string) *device {
	w.t.Helper()
	return w.sign(w.claim(ClaimRequest{Machine: name}))
}

func (w *world) rekey(d *device) *device {
	w.t.Helper()
	key := newKey(w.t)
	return &device{key, chainOf(w.t, w.post(d, "/1.0/rekey", map[string]string{"csr": csrFor(w.t, key, "any")}))}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
