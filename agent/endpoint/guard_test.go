package endpoint

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// hostile is a raw request that must get neither a token nor a challenge.
type hostile struct {
	guard string // which guard stops it; "" if net/http, route or method does
	name  string
	raw   string // {URI} and {PORT} are filled in
}

// with is a request for a token that is right but for its header lines.
func with(guard string, headers ...string) []hostile {
	var all []hostile
	for _, h := range headers {
		all = append(all, hostile{guard, strings.SplitN(h, "\r", 2)[0], "GET {URI} HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n" + h + "\r\n\r\n"})
	}
	return all
}

func hosts(values ...string) []hostile {
	var all []hostile
	for _, v := range values {
		all = append(all, hostile{"host", "Host " + v, "GET {URI} HTTP/1.1\r\nHost: " + v + "\r\nMetadata: true\r\n\r\n"})
	}
	return all
}

// hostileRequests are web pages, rebinding, forged requests and proxies
// (EP11), as raw bytes.
func hostileRequests() []hostile {
	all := with("browser",
		"Origin: http://localhost", "Origin: null", "Origin: http://localhost:{PORT}", "origin: https://evil.com", "ORIGIN:", "Referer: http://localhost/", "referer: x", "Referer:",
		"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none", "sec-fetch-site: cross-site\r\nsec-fetch-mode: cors", "Sec-Fetch-Dest: empty",
		"Sec-Fetch-User: ?1", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: metadata", "access-control-request-private-network: true",
		"Upgrade: websocket\r\nConnection: Upgrade", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings", "upgrade: x",
	)
	all = append(all, with("forwarded",
		"X-Forwarded-For: 127.0.0.1", "x-forwarded-for:", "X-Forwarded-Host: localhost", "X-Forwarded-Proto: https", "X-Forwarded-Server: a", "X-Forwarded-Anything: 1",
		"Forwarded: for=127.0.0.1", "forwarded:", "Via: 1.1 proxy", "VIA: 1.0 squid", "X-Real-IP: 127.0.0.1", "x-real-ip:", "CF-Connecting-IP: 1.2.3.4", "CF-Ray: 1", "cf-visitor: {}",
	)...)
	all = append(all, with("body",
		"Content-Length: 1\r\n\r\nx", "Content-Length: 5", "Transfer-Encoding: chunked\r\n\r\n0", "transfer-encoding: Chunked",
	)...)
	all = append(all, with("",
		"Transfer-Encoding: gzip", "Transfer-Encoding: identity, chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5", "Content-Length: -1", "Content-Length: 1, 2",
		"Content-Length: 0\r\nContent-Length: 1", "Host: localhost", "Bad Header: x", "Bad\x00: x", "X: a\x00b", " folded: x", "Expect: 200-ok", ": x", "X\r",
	)...)
	all = append(all, hosts(
		"", "evil.com", "localhost.evil.com", "127.0.0.1.evil.com", "localhost.", "localhost:1", "localhost:", "localhost:{PORT}0", "localhost:0{PORT}", "127.0.0.1:80", "127.0.0.2",
		"127.1", "0x7f000001", "2130706433", "0.0.0.0", "[::]", "[::1", "::1", "[::1]:1", "[::ffff:127.0.0.1]", "169.254.169.254.", "169.254.169.254.nip.io", "user@localhost", "localhost@evil.com",
		"localhost/", "localhost#", "localhost, evil.com", "evil.com, localhost", "xn--localhost", "LOCALHOST.evil.com", "gateway.local.evil.com", "gateway.local:1", "host.docker.internal", "localhost%00",
	)...)
	for _, v := range []string{
		"", "Metadata: false", "Metadata:", "Metadata: 1", "Metadata: true, true", "Metadata: \"true\"", "Metadata: truex", "Metadata: true\r\nMetadata: true",
		"Metadata: true\r\nMetadata: false", "X-Metadata: true", "Metadata_: true", "Cookie: Metadata=true",
	} {
		if v != "" {
			v += "\r\n"
		}
		all = append(all, hostile{"metadata", "header " + v, "GET {URI} HTTP/1.1\r\nHost: localhost\r\n" + v + "\r\n"})
	}
	rest := "Host: localhost\r\nMetadata: true\r\n\r\n"
	return append(all,
		hostile{"form", "absolute-form", "GET http://localhost{URI} HTTP/1.1\r\n" + rest},
		hostile{"form", "absolute-form, other Host", "GET http://localhost:{PORT}{URI} HTTP/1.1\r\nHost: evil.com\r\nMetadata: true\r\n\r\n"},
		hostile{"form", "absolute-form https", "GET https://127.0.0.1{URI} HTTP/1.1\r\n" + rest},
		hostile{"form", "absolute-form, HTTP/1.0 without Host", "GET http://localhost{URI} HTTP/1.0\r\nMetadata: true\r\n\r\n"},
		hostile{"form", "HTTP/1.2", "GET {URI} HTTP/1.2\r\n" + rest},
		hostile{"form", "HTTP/1.9", "GET {URI} HTTP/1.9\r\n" + rest},
		hostile{"host", "HTTP/1.0 without Host", "GET {URI} HTTP/1.0\r\nMetadata: true\r\n\r\n"},
		hostile{"", "preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
		hostile{"", "preface with Host", "PRI * HTTP/2.0\r\n" + rest},
		hostile{"", "asterisk-form", "OPTIONS * HTTP/1.1\r\n" + rest},
		hostile{"", "GET *", "GET * HTTP/1.1\r\n" + rest},
		hostile{"", "authority-form", "CONNECT localhost:{PORT} HTTP/1.1\r\n" + rest},
		hostile{"", "CONNECT with a path", "CONNECT {URI} HTTP/1.1\r\n" + rest},
		hostile{"", "no version", "GET {URI}\r\n" + rest},
		hostile{"", "HTTP/0.9", "GET {URI} HTTP/0.9\r\n" + rest},
		hostile{"", "HTTP/2.0", "GET {URI} HTTP/2.0\r\n" + rest},
		hostile{"", "HTTP/3.0", "GET {URI} HTTP/3.0\r\n" + rest},
		hostile{"", "lower-case http", "GET {URI} http/1.1\r\n" + rest},
		hostile{"", "no Host in HTTP/1.1", "GET {URI} HTTP/1.1\r\nMetadata: true\r\n\r\n"},
		hostile{"", "two Hosts", "GET {URI} HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nMetadata: true\r\n\r\n"},
		hostile{"", "two Hosts, one evil", "GET {URI} HTTP/1.1\r\nHost: localhost\r\nhost: evil.com\r\nMetadata: true\r\n\r\n"},
		hostile{"", "preflight", "OPTIONS {URI} HTTP/1.1\r\nOrigin: http://evil.com\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: metadata\r\n" + rest},
		hostile{"", "a form post", "POST {URI} HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\nHost: localhost\r\nMetadata: true\r\n\r\na=b"},
		hostile{"", "space in the target", "GET {URI} x HTTP/1.1\r\n" + rest},
		hostile{"", "TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"},
	)
}

func (h hostile) fill(r *rig) string {
	uri := tokenURI
	if r.flavour == AppService {
		uri = strings.Replace(uri, pathToken, pathAppService, 1)
	}
	raw := strings.NewReplacer("{URI}", uri, "{PORT}", r.port()).Replace(h.raw)
	if r.flavour == AppService {
		raw = strings.Replace(raw, "Metadata: true\r\n", "X-IDENTITY-HEADER: "+webSecret+"\r\n", 1)
	}
	return raw
}

// play sends a hostile request and reports what came back: 0 for a connection
// closed without an answer.
func (r *rig) play(h hostile) reply {
	r.t.Helper()
	l := r.dial()
	defer func() { _ = l.c.Close() }()
	l.send(h.fill(r))
	if half, ok := l.c.(*net.TCPConn); ok {
		_ = half.CloseWrite() // what is not a whole request is not waited for
	}
	method, _, _ := strings.Cut(h.raw, " ")
	rep, err := l.tryRead(method)
	if err != nil {
		return reply{Response: &http.Response{}}
	}
	return rep
}

// leaked reports whether the caller got anything that a stranger must not get.
func (r *rig) leaked(rep reply) bool {
	return rep.StatusCode == http.StatusOK || rep.Header.Get("Www-Authenticate") != "" || strings.Contains(rep.body, canary)
}

func TestEP11HostileRequestsGetNoTokenNoChallengeAndNoFile(t *testing.T) {
	all := hostileRequests()
	if len(all) < 40 {
		t.Fatalf("only %d variants", len(all))
	}
	for _, flavour := range []Flavour{Arc, IMDS, AppService} {
		r := newRig(t, flavour)
		for _, h := range all {
			if flavour == AppService && h.guard == "metadata" {
				continue // a workload sends none
			}
			rep := r.play(h)
			if r.leaked(rep) || rep.StatusCode/100 == 3 {
				t.Errorf("%s: %s: %d %s", flavour, h.name, rep.StatusCode, rep.body)
			}
			if h.guard != "" && rep.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: %s: %d, want 400", flavour, h.name, rep.StatusCode)
			}
			if (h.guard == "body" || h.guard == "form") && !rep.Close {
				t.Errorf("%s: %s: the connection stays open", flavour, h.name)
			}
		}
		if f := r.files(); len(f) != 0 {
			t.Errorf("%s: files %q", flavour, f)
		}
		if n := len(r.stub.asked()); n != 0 {
			t.Errorf("%s: the broker was asked %d times", flavour, n)
		}
	}
}

// TestEveryGuardIsNeeded takes each guard out and wants to see somebody get
// through: a guard that nothing misses is not tested, or not needed.
func TestEveryGuardIsNeeded(t *testing.T) {
	every := everyGuard()
	names := make(map[string]bool)
	for _, g := range append(every.early, every.late...) {
		names[g.name] = true
		r := newRig(t, IMDS)
		r.server.guards.early = without(every.early, g.name)
		r.server.guards.late = without(every.late, g.name)
		through := 0
		for _, h := range hostileRequests() {
			if h.guard == g.name && r.leaked(r.play(h)) {
				through++
			}
		}
		if through == 0 {
			t.Errorf("guard %s was taken out and nothing came through", g.name)
		}
	}
	for _, h := range hostileRequests() {
		if h.guard != "" && !names[h.guard] {
			t.Errorf("%s: no guard is called %s", h.name, h.guard)
		}
	}
}

func without(list []guard, name string) []guard {
	var kept []guard
	for _, g := range list {
		if g.name != name {
			kept = append(kept, g)
		}
	}
	return kept
}

func TestAllowedHostsPassBareAndWithOurPort(t *testing.T) {
	for _, flavour := range []Flavour{Arc, IMDS, AppService} {
		r := newRig(t, flavour)
		uri, secret := tokenURI, ""
		if flavour == AppService {
			uri, secret = strings.Replace(tokenURI, pathToken, pathAppService, 1), "X-IDENTITY-HEADER: "+webSecret+"\r\n"
		}
		for _, host := range []string{"localhost", "127.0.0.1", "[::1]", "169.254.169.254", "gateway.local"} {
			for _, h := range []string{host, host + ":" + r.port()} {
				rep := r.raw(http.MethodGet, "GET "+uri+" HTTP/1.1\r\nHost: "+h+"\r\nMetadata: true\r\n"+secret+"\r\n")
				if want := map[Flavour]int{Arc: 401, IMDS: 200, AppService: 200}[flavour]; rep.StatusCode != want {
					t.Errorf("%s, %s: %d %s", flavour, h, rep.StatusCode, rep.body)
				}
			}
		}
	}
}

func TestHostNamesAreConfiguredForOneListenerOnly(t *testing.T) {
	r := newRig(t, IMDS)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.server.front(Listener{Listener: l, Flavour: IMDS})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, ok := other.hosts["gateway.local"]; ok {
		t.Error("a name configured for one listener is allowed on another")
	}
}

func TestHTTP10WithOneHostIsServed(t *testing.T) {
	r := newRig(t, Arc)
	key := r.key(r.raw(http.MethodGet, "GET "+tokenURI+" HTTP/1.0\r\nHost: localhost\r\nMetadata: true\r\n\r\n"))
	rep := r.raw(http.MethodGet, "GET "+tokenURI+" HTTP/1.0\r\nHost: localhost\r\nMetadata: true\r\nAuthorization: Basic "+key+"\r\n\r\n")
	r.must(rep, http.StatusOK, canary)
}

func TestProxyAnswerNamesNOPROXY(t *testing.T) {
	r := newRig(t, Arc)
	rep := r.get(tokenURI, "Via: 1.1 corp")
	if e := decodeError(t, rep); e.Description != "a proxy forwarded this request; add 127.0.0.1,localhost,169.254.169.254 to NO_PROXY" || e.Error != "invalid_request" {
		t.Errorf("got %+v", e)
	}
}

// The order of firmware-notes/wire.md: a hostile request to a path that does not
// exist is a 404, a hostile POST a 405, and Host goes before both.
func TestOrderOfTheGuard(t *testing.T) {
	r := newRig(t, Arc)
	for raw, want := range map[string]int{
		"GET /nothing HTTP/1.1\r\nHost: evil.com\r\n\r\n":                                       400,
		"GET /nothing HTTP/1.1\r\nHost: localhost\r\nOrigin: x\r\n\r\n":                         404,
		"POST " + pathToken + " HTTP/1.1\r\nHost: localhost\r\nOrigin: x\r\n\r\n":               405,
		"GET " + pathToken + " HTTP/1.1\r\nHost: localhost\r\nOrigin: x\r\n\r\n":                400,
		"GET " + pathToken + "?resource=%zz HTTP/1.1\r\nHost: localhost\r\nVia: x\r\n\r\n":      400,
		"GET " + pathToken + "?resource=%zz HTTP/1.1\r\nHost: localhost\r\n\r\n":                400,
		"GET " + tokenURI + " HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n":            401,
		"GET " + tokenURI + "&resource=x HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n": 400,
	} {
		if rep := r.raw(strings.Fields(raw)[0], raw); rep.StatusCode != want {
			t.Errorf("%q: %d, want %d", raw, rep.StatusCode, want)
		}
	}
	codes := map[string]string{
		"GET " + pathToken + "?resource=%zz HTTP/1.1\r\nHost: localhost\r\nVia: x\r\n\r\n":             "NO_PROXY",
		"GET " + pathToken + "?resource=%zz HTTP/1.1\r\nHost: localhost\r\n\r\n":                       "bad_request_102",
		"GET " + pathToken + "?resource=%zz HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n":     "resource is not well encoded",
		"GET " + pathToken + " HTTP/1.1\r\nHost: localhost\r\nOrigin: x\r\nVia: x\r\n\r\n":             "browser",
		"GET " + pathToken + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nOrigin: x\r\n\r\nx": "body",
	}
	for raw, want := range codes {
		r.must(r.raw(http.MethodGet, raw), http.StatusBadRequest, want)
	}
}

// FuzzRequest sends raw bytes: whatever does not conform gets neither a 200 nor
// a challenge with a file.
func FuzzRequest(f *testing.F) {
	for _, h := range hostileRequests() {
		f.Add([]byte(strings.NewReplacer("{URI}", tokenURI, "{PORT}", "40342").Replace(h.raw)))
	}
	f.Add([]byte(request(tokenURI)))
	f.Add([]byte(request(tokenURI, "Authorization: Basic x")))
	f.Add([]byte(request("/metadata/instance?api-version=2021-02-01")))
	r := newRig(f, Arc)
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := len(r.keeper.Health().Unknown) + r.keeper.Health().Outstanding
		here, there := net.Pipe()
		front, err := r.server.front(Listener{Listener: fixedListener{}, Flavour: Arc})
		if err != nil {
			t.Fatal(err)
		}
		server := front.server(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(&oneConn{c: there, gone: make(chan struct{})})
		}()
		_ = here.SetDeadline(time.Now().Add(5 * time.Second))
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			_, _ = here.Write(raw)
			_, _ = here.Write([]byte("\r\n\r\n"))
		}()
		rep, err := http.ReadResponse(bufio.NewReader(here), nil)
		_ = here.Close()
		<-wrote
		_ = server.Close()
		<-done
		if err != nil {
			return
		}
		_ = rep.Body.Close() // the line is closed already
		made := len(r.keeper.Health().Unknown) + r.keeper.Health().Outstanding - before
		if (rep.StatusCode == http.StatusOK || rep.StatusCode == http.StatusUnauthorized || made > 0) && !conforms(string(raw)) {
			t.Errorf("status %d, %d files for %q", rep.StatusCode, made, raw)
		}
		if rep.StatusCode/100 == 3 {
			t.Errorf("redirect for %q", raw)
		}
	})
}

// conforms says, by rules of its own, that raw begins with a request that may be
// answered: what it does not recognise it calls wrong.
func conforms(raw string) bool {
	raw = strings.ReplaceAll(raw, "\r\n", "\n")
	head, _, _ := strings.Cut(strings.TrimLeft(raw, "\n"), "\n\n")
	all := strings.Split(head, "\n")
	words := strings.Split(all[0], " ")
	if len(words) != 3 || words[0] != "GET" || !strings.HasPrefix(words[1], "/") || words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0" {
		return false
	}
	host, metadata := 0, 0
	for _, h := range all[1:] {
		name, value, _ := strings.Cut(h, ":")
		name, value = strings.ToLower(name), strings.ToLower(strings.Trim(value, " \t\r"))
		switch {
		case name == "host":
			value = strings.TrimSuffix(value, ":40342")
			if value != "localhost" && value != "127.0.0.1" && value != "[::1]" && value != "169.254.169.254" {
				return false
			}
			host++
		case name == "metadata" && value == "true":
			metadata++
		case name == "content-length" && strings.Trim(value, "0") != "", name == "transfer-encoding", name == "origin", name == "referer", name == "upgrade",
			name == "via", name == "forwarded", name == "x-real-ip", name == "sec-fetch-site", name == "sec-fetch-dest", name == "sec-fetch-user",
			strings.HasPrefix(name, "x-forwarded-"), strings.HasPrefix(name, "cf-"), strings.HasPrefix(name, "access-control-request-"):
			return false
		}
	}
	path, _, _ := strings.Cut(words[1], "?")
	return host == 1 && metadata == 1 && strings.HasPrefix(tidy(path), "/metadata/")
}

// fixedListener is an address without a socket.
type fixedListener struct{}

func (fixedListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (fixedListener) Close() error              { return nil }
func (fixedListener) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40342} }

// oneConn hands out one connection and then nothing.
type oneConn struct {
	c    net.Conn
	used bool
	gone chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.used {
		l.used = true
		return l.c, nil
	}
	<-l.gone
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	select {
	case <-l.gone:
	default:
		close(l.gone)
	}
	return nil
}

func (l *oneConn) Addr() net.Addr { return fixedListener{}.Addr() }
