package endpoint

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/agent/challenge"
	"postern/agent/credential"
	"postern/agent/token"
	"postern/platform"
	"postern/platform/platformtest"
	"postern/store"
)

// The promises of README.md: a cached IMDS request within 1.3x of a bare
// net/http server, a whole Arc handshake within 1.3x of a bare one that does
// the same file work. Both sides of a pair are measured in turn, in one run;
// p50 and the ratio are printed. Nothing is asserted: on a busy machine a
// latency proves nothing.

// tokenOf is as long as real ones are.
var tokenOf = strings.Repeat("eyJ0eXAiOiJKV1Qi", 100)

// bareBody is what a bare server answers: the same fields.
func bareBody() []byte {
	body, err := json.Marshal(map[string]string{
		"access_token": tokenOf, "client_id": system.ClientID, "expires_in": "86399", "expires_on": "1795434561",
		"ext_expires_in": "86399", "not_before": "1795347861", "resource": vault, "token_type": "Bearer",
	})
	if err != nil {
		panic(err)
	}
	return body
}

// bareServer serves h with nothing around it.
func bareServer(b *testing.B, h http.HandlerFunc) string {
	b.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close() })
	return "http://" + l.Addr().String()
}

// ours serves one flavour without logs and hooks, as the agent does.
func ours(b *testing.B, flavour Flavour, keeper *challenge.Keeper) string {
	b.Helper()
	stub := &benchTokens{}
	s, err := New(Options{
		Tokens: stub, Keeper: keeper, StateDir: "/var/lib/postern",
		Peer:    func(net.Conn) platform.Peer { return alice },
		MayIMDS: func(platform.Peer) bool { return true },
	})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(b.Context(), Listener{Listener: l, Flavour: flavour}) }()
	b.Cleanup(func() {
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

// client is a keep-alive client like an SDK's.
func client(b *testing.B) *http.Client {
	b.Helper()
	t := &http.Transport{DisableCompression: true}
	b.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

func call(b *testing.B, c *http.Client, url, authorization string) (status int, realm string) {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := c.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Www-Authenticate")
}

// compare runs both in turn and reports p50 of each and their ratio.
func compare(b *testing.B, bare, own func()) {
	b.Helper()
	for range 50 { // warm both
		bare()
		own()
	}
	var bares, owns []time.Duration
	for b.Loop() {
		start := time.Now()
		bare()
		middle := time.Now()
		own()
		bares, owns = append(bares, middle.Sub(start)), append(owns, time.Since(middle))
	}
	p50 := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2].Nanoseconds())
	}
	b.ReportMetric(p50(bares)/1e3, "bare-p50-µs")
	b.ReportMetric(p50(owns)/1e3, "own-p50-µs")
	b.ReportMetric(p50(owns)/p50(bares), "ratio")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkCachedIMDSAgainstBareServer(b *testing.B) {
	body := bareBody()
	url := bareServer(b, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", typeJSON)
		_, _ = w.Write(body)
	})
	own := ours(b, IMDS, nil)
	c := client(b)
	compare(b, func() {
		if status, _ := call(b, c, url+tokenURI, ""); status != http.StatusOK {
			b.Fatal(status)
		}
	}, func() {
		if status, _ := call(b, c, own+tokenURI, ""); status != http.StatusOK {
			b.Fatal(status)
		}
	})
}

// fileServer does an Arc handshake's file work, by the same platform, and
// nothing else: a random secret into a new file that appears complete, compared
// and unlinked by the second request.
func fileServer(b *testing.B, host platform.Host) http.HandlerFunc {
	path := host.Dirs().Tokens
	dir, err := host.OpenDir(path, platform.TokenReaders)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = dir.Close() })
	body, n, expected := bareBody(), 0, ""
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", typeJSON)
		if auth := r.Header.Get("Authorization"); auth != "" {
			if auth != "Basic "+expected || dir.Remove(strconv.Itoa(n)+".key") != nil {
				b.Error("bare: wrong key")
			}
			_, _ = w.Write(body)
			return
		}
		n++
		var raw [32]byte
		_, _ = rand.Read(raw[:])
		expected = base64.RawURLEncoding.EncodeToString(raw[:])
		name := strconv.Itoa(n) + ".key"
		if err := dir.Create(name, []byte(expected)); err != nil {
			b.Error(err)
		}
		w.Header().Set("Www-Authenticate", "Basic realm="+filepath.Join(path, name))
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(challengeBody))
	}
}

func BenchmarkArcHandshakeAgainstBareFileServer(b *testing.B) {
	host := platformtest.NewSim(b)
	bare := bareServer(b, fileServer(b, platformtest.NewSim(b)))
	keeper, err := challenge.New(challenge.Options{Host: host, Poll: true})
	if err != nil {
		b.Fatal(err)
	}
	own := ours(b, Arc, keeper)
	c := client(b)
	compare(b, func() { handshake(b, c, bare) }, func() { handshake(b, c, own) })
}

func handshake(b *testing.B, c *http.Client, base string) {
	status, realm := call(b, c, base+tokenURI, "")
	key, err := os.ReadFile(strings.TrimPrefix(realm, "Basic realm="))
	if err != nil || status != http.StatusUnauthorized {
		b.Fatal(status, err)
	}
	if status, _ := call(b, c, base+tokenURI, "Basic "+string(key)); status != http.StatusOK {
		b.Fatal(status)
	}
}

// BenchmarkServeHTTP is our own part of a cached IMDS request, without sockets.
func BenchmarkServeHTTP(b *testing.B) {
	s, err := New(Options{Tokens: &benchTokens{}, MayIMDS: func(platform.Peer) bool { return true }})
	if err != nil {
		b.Fatal(err)
	}
	f, err := s.front(Listener{Listener: fixedListener{}, Flavour: IMDS})
	if err != nil {
		b.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodGet, tokenURI, http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	r.RequestURI, r.Host = tokenURI, "localhost"
	r.Header.Set("Metadata", "true")
	r = r.WithContext(contextWith(&conn{peer: alice}))
	w := &sink{h: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		f.ServeHTTP(w, r)
	}
	if w.status != http.StatusOK {
		b.Fatal(w.status)
	}
}

// BenchmarkRefusalOfAProbe must stay cheap: anybody can cause it.
func BenchmarkRefusalOfAProbe(b *testing.B) {
	s, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	f, err := s.front(Listener{Listener: fixedListener{}, Flavour: IMDS})
	if err != nil {
		b.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodGet, pathToken, http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	r.RequestURI, r.Host = pathToken, "localhost"
	w := &sink{h: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		f.ServeHTTP(w, r)
	}
}

// sink takes answers.
type sink struct {
	h      http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

var secretOf = store.NewSecret(tokenOf)

// benchTokens always has a cached token.
type benchTokens struct{}

func (*benchTokens) Resolve(credential.Selector) (credential.Standing, error) {
	return credential.Standing{Identity: system}, nil
}

func (*benchTokens) Token(_ context.Context, r token.Request) (token.Token, error) {
	return token.Token{
		Value: secretOf, Identity: system, Resource: r.Resource, Remaining: 86399 * time.Second,
		ExpiresOn: time.Unix(1795434561, 0), NotBefore: time.Unix(1795347861, 0), FromCache: true,
	}, nil
}

func contextWith(c *conn) context.Context {
	return context.WithValue(context.Background(), connKey{}, c)
}
